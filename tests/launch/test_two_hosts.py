"""Two hosts with a network between them, which is cut: the job ends, and a second start goes on."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import LAUNCH, LONG, QUICK, start, steps, stopped, wait_for_steps, wait_until

HOSTS = Path(__file__).with_name("two_hosts.sh")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


def hosts(*words: str) -> None:
    subprocess.run([str(HOSTS), *words], check=True, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def _network() -> Iterator[None]:
    hosts("down")
    hosts("up")
    yield
    hosts("down")


@pytest.fixture(autouse=True)
def _cable() -> None:
    hosts("heal", "2")  # also where an earlier test has failed


def launch(
    folder: Path, logs: Path, *words: str, on: tuple[str, ...] = ("1", "2"), **variables: str
) -> list[subprocess.Popen[bytes]]:
    """Start launch/multinode.sh on both hosts, or on one of them."""
    logs.mkdir(exist_ok=True)
    words = (*(words or (*LONG, "strategy.timeout_minutes=0.2")), f"run.dir={folder}")
    common = {"NNODES": "2", "ENDPOINT": "10.77.0.1:29400", "GLOO_SOCKET_IFNAME": "eth0"} | variables
    return [
        start(
            *(HOSTS, "on", host, LAUNCH / "multinode.sh", *words),
            log=logs / host,
            **common,
            IS_HOST=str(host == "1").lower(),
            LOCAL_ADDR=f"10.77.0.{host}",
        )
        for host in on
    ]


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_a_divided_model_trains_saves_and_finishes(tmp_path, strategy) -> None:
    folder = tmp_path / "run"
    divided = [f"strategy={strategy}", "train.epochs=6", "train.checkpoint_every=4"]
    both = launch(folder, tmp_path / "logs", *QUICK, *divided, "strategy.timeout_minutes=2")
    codes = [host.wait(timeout=200) for host in both]
    said = (tmp_path / "logs" / "1").read_text()
    assert codes == [0, 0], said
    assert f"2 x cpu, strategy {strategy}" in said
    assert (folder / "report.json").is_file() and (folder / "model" / "model.safetensors").is_file()
    assert (folder / "checkpoints" / "step-00000012").is_dir()


def test_a_cut_network_ends_both_and_a_second_start_goes_on(tmp_path) -> None:
    folder = tmp_path / "run"
    both = launch(folder, tmp_path / "first")
    wait_for_steps(folder, more_than=60)
    hosts("cut", "2")
    assert both[0].wait(timeout=60) == 1  # 12 seconds of strategy.timeout_minutes
    assert both[1].wait(timeout=180) == 1  # torchrun there waits for host 1 longer
    said = [(tmp_path / "first" / host).read_text() for host in ("1", "2")]
    # The watchdog's time is half of strategy.timeout_minutes; on host 2 it cannot reach the store, and waits.
    assert "rank 0 of 2 on " in said[0] and "watchdog: no answer from rank 1: its process is gone" in said[0]
    assert "rank 1: error: another rank has failed or did not answer within strategy.timeout_minutes" in said[1]
    assert "Traceback" not in "".join(said)
    assert "error: rank 0 was the first to fail: exit code 1" in said[0]
    assert not (folder / "stopped.json").exists()

    hosts("heal", "2")
    before = max(steps(folder))
    both = launch(folder, tmp_path / "second")
    last = wait_for_steps(folder, more_than=before)
    both[1].send_signal(signal.SIGTERM)  # to one host, for both
    assert [host.wait(timeout=60) for host in both] == [75, 75]
    assert stopped(folder)["reason"] == "another rank was asked to stop"
    assert stopped(folder)["step"] >= last
    assert "going on from" in (tmp_path / "second" / "1").read_text()


def test_one_of_at_least_one_host_goes_on_alone(tmp_path) -> None:
    folder, log = tmp_path / "run", tmp_path / "logs" / "1"
    both = launch(folder, tmp_path / "logs", NNODES="1:2")
    last = wait_for_steps(folder, more_than=60)
    assert log.read_text().count("2 x cpu") == 1
    hosts("cut", "2")
    both[1].kill()
    both[1].wait()
    wait_until(lambda: "1 x cpu" in log.read_text(), "a start on one host", 240)
    assert "going on from" in log.read_text()
    last = wait_for_steps(folder, more_than=last)
    both[0].send_signal(signal.SIGTERM)
    assert both[0].wait(timeout=60) == 75
    assert stopped(folder)["step"] >= last


def test_a_host_that_joins_takes_part(tmp_path) -> None:
    folder, log = tmp_path / "run", tmp_path / "logs" / "1"
    hosts = launch(folder, tmp_path / "logs", on=("1",), NNODES="1:2")
    last = wait_for_steps(folder)
    assert "1 x cpu" in log.read_text()
    hosts += launch(folder, tmp_path / "logs", on=("2",), NNODES="1:2")
    wait_until(lambda: "2 x cpu" in log.read_text(), "a start on both hosts", 240)
    assert "SIGTERM: saving and stopping at the next step" in log.read_text()  # from torchrun: no step is lost
    assert "going on from" in log.read_text()
    last = wait_for_steps(folder, more_than=last)
    hosts[0].send_signal(signal.SIGTERM)
    assert [host.wait(timeout=60) for host in hosts] == [75, 75]
    assert stopped(folder)["step"] >= last
