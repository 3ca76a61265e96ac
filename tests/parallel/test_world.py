"""Joining the world: what is refused before a process waits for others. Leaving it: none waits at the end."""

import socket
from pathlib import Path

import pytest
import torch

from tests.torchrun import torchrun
from xlmrxl_train.config import SingleConfig, StrategyConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel import World, from_first_rank, world


def launch(monkeypatch: pytest.MonkeyPatch, *, rank: int, size: int, port: int = 29500) -> None:
    """Set what torchrun would."""
    variables = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_one_process_is_wanted_and_several_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, rank=1, size=2)
    with pytest.raises(ConfigError) as caught:
        World.open(SingleConfig())
    assert str(caught.value) == "strategy=single runs in one process, the launcher started 2. Use strategy=ddp."


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, rank=1, size=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError) as caught:
        World.open(StrategyConfig())
    assert str(caught.value) == (
        "rank 1 of this machine needs a GPU of its own, found 1. "
        "Start as many processes as there are GPUs (torchrun --nproc-per-node), or use strategy.device=cpu."
    )


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        launch(monkeypatch, rank=0, size=2, port=port)
        with pytest.raises(ConfigError) as caught:
            from_first_rank(lambda: None)
    message = str(caught.value)
    assert message.startswith(
        f"$MASTER_ADDR and $MASTER_PORT must be where all ranks can meet, got 127.0.0.1:{port}: The server socket has"
    )
    assert message.endswith("Start all ranks within 0:10:00, on a port that is free.") and "\n" not in message


def test_a_first_rank_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "MEETING_TIME", world.MEETING_TIME / 600)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    launch(monkeypatch, rank=1, size=2, port=port)
    with pytest.raises(ConfigError, match=rf"all ranks can meet, got 127\.0\.0\.1:{port}: The client socket has timed"):
        from_first_rank(lambda: None)


LEAVING = Path(__file__).with_name("leaving.py")


def test_leaving_frees_the_group_and_its_threads_and_ranks_can_join_again() -> None:
    done = torchrun(LEAVING, "2", "strategy=ddp", seconds=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n", "") == "0 threads left" * 4  # two ranks write at once


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", "zero2", "zero3"])
def test_leaving_a_group_that_an_engine_keeps_and_joining_again(strategy: str) -> None:
    done = torchrun(LEAVING, "2", f"strategy={strategy}", seconds=100)
    assert done.returncode == 0 and "terminate called" not in done.stderr, done.stderr


def test_a_fault_aborts_no_rank() -> None:
    said = torchrun(LEAVING, "fault", "strategy=ddp", seconds=100).stderr
    assert "exitcode  : 2" in said, said  # of the first; torchrun may end the other one
    assert "SIGABRT" not in said and "terminate called" not in said, said
