"""Files of tensors that change or vanish while they are read. Damaged ones: tests/training/test_untrusted.py."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.parallel import World, tensor_files
from xlmrxl_train.parallel.tensor_files import load_tensors, read_index, save_tensors

FILE = "rank-00000.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "tensors", {"weight": torch.arange(12.0).view(3, 4)}, World())
    return tmp_path / "tensors"


def test_a_file_that_became_shorter_since_it_was_checked(saved: Path) -> None:
    reader = tensor_files._Reader(saved, read_index(saved))
    (saved / FILE).write_bytes((saved / FILE).read_bytes()[:-1])
    with pytest.raises(CheckpointError) as caught, tensor_files._plain_faults():
        dcp.load({"weight": torch.zeros(3, 4)}, storage_reader=reader, no_dist=True)
    assert str(caught.value) == f"{saved / FILE} ends within weight. Use another checkpoint."


def test_a_file_that_is_there_on_some_machines_only(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = read_index(saved)  # as rank 0 read it
    (saved / FILE).unlink()
    monkeypatch.setattr(tensor_files, "read_index", lambda folder: index)
    with pytest.raises(CheckpointError) as caught:
        load_tensors(saved, {"weight": torch.zeros(3, 4)}, World())
    assert str(caught.value) == (
        f"{saved} cannot be read: No such file or directory. Every rank needs the same files: use a shared folder."
    )
