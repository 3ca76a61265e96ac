"""A rank that stands still ends the job soon, after all have said where they are; a slow one does not."""

import socket

import pytest
from jobs import WORDS, events
from test_ranks import launch

SECONDS = 3
WATCHED = [*WORDS, f"strategy.watchdog_minutes={SECONDS / 60}"]


def test_a_rank_that_hangs_ends_the_job_with_a_report_of_every_rank(tmp_path) -> None:
    folder = tmp_path / "run"
    code, said, seconds = launch(tmp_path / "out", "hang:1", *WATCHED, f"run.dir={folder}")
    assert code == 1, said
    assert seconds < 60
    for rank in (0, 1):
        assert said.count(f"rank {rank} of 2 on ") == 1, said
        assert "no rank has moved for 0.05 minutes (strategy.watchdog_minutes)" in said
    where = dict(line.split(" is here: ") for line in said.splitlines() if " is here: " in line)
    assert where["rank 1"].startswith("step 5, optimizer, for ") and " left " in where["rank 1"]
    assert where["rank 0"].startswith("step 5, for ") and "(sum) entered" in where["rank 0"]
    assert where["rank 0"].endswith(" s ago, not left")
    assert f"watchdog: behind the others: rank 1 on {socket.gethostname()}: step 5, optimizer, for " in said
    assert "in hanging\n    time.sleep(3600)" in said  # the stack of rank 1


@pytest.mark.slow
def test_a_slow_job_is_left_alone(tmp_path) -> None:
    folder = tmp_path / "run"
    short = ["train.max_steps=4", "evaluate.every=2", "evaluate.tokens_per_batch=300", f"data.cache={tmp_path}"]
    code, said, seconds = launch(tmp_path / "out", "slow:1", *WATCHED, *short, f"run.dir={folder}")
    assert code == 0, said
    assert seconds > 10 * SECONDS
    assert (folder / "report.json").exists()


@pytest.mark.slow
def test_rank_0_may_read_data_for_longer_than_a_collective_may_take(tmp_path) -> None:
    folder = tmp_path / "run"
    words = [*WATCHED, "strategy.timeout_minutes=0.1", f"data.cache={tmp_path}", "train.max_steps=2"]
    code, said, _ = launch(tmp_path / "out", "long:12", *words, f"run.dir={folder}")
    assert code == 0, said
    assert len([event for event in events(folder) if event["event"] == "train"]) == 2
