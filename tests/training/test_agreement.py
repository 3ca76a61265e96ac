"""A rank that is unlike the others, or sees another run folder, is refused on all ranks at once, in one line."""

import gzip
import json
import socket
from pathlib import Path

import pytest
from jobs import TOKENIZER, WORDS
from test_ranks import launch

HOST = socket.gethostname()


def refused(tmp_path: Path, what: str) -> str:
    """Start two ranks that must both end with exit code 2, with one line and no run folder; return that line."""
    folder = tmp_path / "out" / "run"
    code, said, seconds = launch(tmp_path / "out", what, *WORDS, f"run.dir={folder}")
    assert code == 2, said
    lines = [line for line in said.splitlines() if "error: " in line]
    assert len(lines) == 1, said
    assert "xlmrxl_train/" not in said.replace(lines[0], ""), said
    assert seconds < 60
    assert not folder.exists()
    return lines[0]


def test_another_tokenizer(tmp_path) -> None:
    with gzip.open(TOKENIZER / "tokenizer.json.gz", "rt", encoding="utf-8") as file:
        vocabulary = json.load(file)
    vocabulary["model"]["vocab"][-1][1] -= 1.0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    line = refused(tmp_path, "tokenizer:1")
    assert line.startswith("error: tokenizer must be the same on every rank, got ")
    assert f" on rank 0 ({HOST}); " in line and f" on rank 1 ({HOST}). Give every machine the same tokenizer" in line


@pytest.mark.slow
def test_another_version(tmp_path) -> None:
    line = refused(tmp_path, "torch:0")
    assert line.startswith(f"error: torch must be the same on every rank, got 2.99.0 on rank 0 ({HOST}); ")
    assert line.endswith("Install the same versions on every machine, or start all ranks in the same environment.")


@pytest.mark.slow
def test_other_data(tmp_path) -> None:
    line = refused(tmp_path, "data:1")
    assert line.startswith("error: train data of en must be the same on every rank, got ")
    assert line.endswith(f" on rank 1 ({HOST}). Give every machine the same files.")


@pytest.mark.slow
def test_other_words(tmp_path) -> None:
    code, said, _ = launch(tmp_path / "out", "words:1", *WORDS, f"run.dir={tmp_path / 'run'}")
    assert code == 2
    message = f"optimizer.eps must be the same on every rank, got 1e-06 on rank 0 ({HOST}); 1e-05 on rank 1 ({HOST}). "
    assert f"rank 0 raised: {message}" in said and f"rank 1 raised: {message}" in said, said


def test_a_folder_that_one_rank_does_not_see(tmp_path) -> None:
    folder = tmp_path / "out" / "run"
    line = refused(tmp_path, "folder:1")
    assert line == (
        f"error: run.dir={folder} must be one folder for all ranks, but rank 1 ({HOST}) (in {folder}) did not see what "
        f"rank 0 ({HOST}) wrote in {folder}. Put it on a file system that all machines share."
    )
