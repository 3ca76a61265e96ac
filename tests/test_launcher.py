"""What a launcher says in the environment, right and wrong."""

import pytest

from xlmrxl_train import load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.launcher import Launched, is_first, launched

Capture = pytest.CaptureFixture[str]
TORCHRUN = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
FAULTS = [
    (
        {"WORLD_SIZE": "two"},
        ["$WORLD_SIZE must be a whole number from 1, got 'two'. Unset it, or start with torchrun."],
    ),
    ({"WORLD_SIZE": "0"}, ["$WORLD_SIZE must be a whole number from 1, got '0'. Unset it, or start with torchrun."]),
    ({"RANK": "-1"}, ["$RANK must be a whole number from 0, got '-1'. Unset it, or start with torchrun."]),
    (
        {"RANK": "", "LOCAL_RANK": "z"},
        [
            "$RANK must be a whole number from 0, got ''. Unset it, or start with torchrun.",
            "$LOCAL_RANK must be a whole number from 0, got 'z'. Unset it, or start with torchrun.",
        ],
    ),
    ({"LOCAL_RANK": "9" * 5000}, [f"$LOCAL_RANK must be a whole number from 0, got '{'9' * 40}'. Unset it, or"]),
    ({"RANK": "1"}, ["$RANK must be below $WORLD_SIZE = 1, got 1. Start with torchrun."]),
    (
        {"WORLD_SIZE": "2"},
        [
            f"${name} must be set where $WORLD_SIZE is 2, got nothing. Start with torchrun."
            for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")
        ],
    ),
    (
        TORCHRUN | {"MASTER_PORT": "65536"},
        ["$MASTER_PORT must be a whole number from 0, got '65536'. Unset it, or start with torchrun."],
    ),
]


def test_without_a_launcher_a_process_is_alone() -> None:
    assert launched() == Launched(rank=0, size=1, local_rank=0, local_size=1)
    assert is_first()


def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert launched() == Launched(rank=3, size=4, local_rank=1, local_size=2)
    assert not is_first()


@pytest.mark.parametrize(("variables", "faults"), FAULTS)
def test_every_fault_is_one_line(
    variables: dict[str, str], faults: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        launched()
    found = caught.value.faults
    assert len(found) == len(faults) and all(map(str.startswith, found, faults)), found
    if is_first():
        assert main(["recipe=demo"]) == 2
        assert capsys.readouterr().err == "".join(f"error: {fault}\n" for fault in found)


def test_python_gets_the_same_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match=r"^\$WORLD_SIZE must be a whole number from 1, got 'two'\. Unset it"):
        train(load_config(["recipe=demo"]))


def test_a_wrong_rank_does_not_silence_its_own_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, first in (("abc", True), ("00", True), ("0", True), ("10", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_first() is first
