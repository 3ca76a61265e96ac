"""Checkpoints that somebody else made: nothing in them is executed, and sizes are checked before memory is taken."""

import json
import os
import pickle
import shutil
import tracemalloc
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from jobs import run

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.tensor_files import load_tensors, read_index, save_tensors
from xlmrxl_train.training.checkpoint import MANIFEST, Checkpointer, _describe, _files, load, read_state, verify


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def torch_file(path: Path, payload: Payload) -> None:
    """A file as torch.save makes it, whose pickle is the payload."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload))
        archive.writestr("archive/version", "3\n")


@pytest.fixture
def checkpoint(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted / "checkpoints/step-00000009", tmp_path / "checkpoints/step-00000009"))


def sign(checkpoint: Path) -> None:
    """Write a manifest that fits: who can plant a file can do that too."""
    (checkpoint / MANIFEST).unlink()
    manifest = {file.relative_to(checkpoint).as_posix(): _describe(file) for file in _files(checkpoint)}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


class Target:
    """What `load` asks of a strategy, for a model whose names and shapes are those of the checkpoint."""

    world = World()
    model = torch.nn.Module()  # no embedding whose rows are compared
    trainable = frozenset()  # no adapters

    def __init__(self, checkpoint: Path) -> None:
        index = json.loads((checkpoint / "tensors/index.json").read_text())
        self.tensors = {
            name: torch.zeros(entry["shape"]) for name, entry in index.items() if not name.endswith(".rows")
        }

    def state_dict(self):
        return self.tensors

    def load_state_dict(self, state, steps) -> None: ...


def test_a_whole_checkpoint_is_read(checkpoint) -> None:
    verify(checkpoint)
    assert load(checkpoint, Target(checkpoint)).step == 9


@pytest.mark.parametrize("content", ["pickle", "torch.save"])
@pytest.mark.parametrize(
    "name", ["tensors/rank-00000.safetensors", "tensors/.metadata", "tensors/__0_0.distcp", "tensors/index.json",
             "state.json", "manifest.json"],
)  # fmt: skip
def test_a_planted_pickle_is_not_executed(checkpoint, tmp_path, name, content) -> None:
    target, payload, file = Target(checkpoint), Payload(tmp_path / "executed"), checkpoint / name
    harmless = not file.exists()  # a name that DCP reads and we do not
    if content == "pickle":
        file.write_bytes(pickle.dumps(payload))
    else:
        torch_file(file, payload)
    if name != "manifest.json":
        with pytest.raises(CheckpointError) if not harmless else nullcontext():
            verify(checkpoint)
        sign(checkpoint)
    with pytest.raises(CheckpointError) if not harmless else nullcontext():
        verify(checkpoint)
        load(checkpoint, target)
    assert not (tmp_path / "executed").exists()


def test_the_whole_command_executes_nothing_either(copy_of_interrupted, tmp_path) -> None:
    folder = copy_of_interrupted / "checkpoints"
    for step in Checkpointer(folder, keep=1).steps():
        path = folder / f"step-{step:08d}"
        for name in (".metadata", "__0_0.distcp", "rank-00000.safetensors"):
            torch_file(path / "tensors" / name, Payload(tmp_path / "executed"))
        sign(path)
    with pytest.raises(CheckpointError, match=r"must list the tensors of a checkpoint, got a piece of .* up to byte"):
        run(copy_of_interrupted)
    assert not (tmp_path / "executed").exists()


HUGE = 1 << 50
BAD_INDEX = {
    "a path outside": (lambda e: e["pieces"][0].update(file="../../x"), r"in '\.\./\.\./x', which is no file of this"),
    "an absolute path": (lambda e: e["pieces"][0].update(file="/etc/passwd"), r"in '/etc/passwd', which is no file"),
    "another file of the folder": (lambda e: e["pieces"][0].update(file="index.json"), r"which is no file of this"),
    "a file that is missing": (lambda e: e["pieces"][0].update(file="rank-00009.safetensors"), r"No such file"),
    "a huge begin": (lambda e: e["pieces"][0].update(begin=HUGE), r"up to byte [\d,]+ of rank-00000"),
    "a negative begin": (lambda e: e["pieces"][0].update(begin=-1), r"where numbers belong"),
    "a huge shape": (lambda e: e.update(shape=[HUGE, HUGE]), r"elements of|argument|outside"),
    "huge everything": (
        lambda e: (e.update(shape=[HUGE]), e["pieces"][0].update(offsets=[0], sizes=[HUGE])), r"up to byte [\d,]+ of"
    ),
    "sizes outside": (lambda e: e["pieces"][0].update(sizes=[n + 1 for n in e["shape"]]), r"outside of its shape"),
    "offsets outside": (lambda e: e["pieces"][0].update(offsets=[5 for _ in e["shape"]]), r"outside of its shape"),
    "a gap": (lambda e: e["pieces"][0].update(sizes=[1 for _ in e["shape"]]), r"1 of the [\d,]+ elements of"),
    "no piece": (lambda e: e.update(pieces=[]), r"0 of the [\d,]+ elements of"),
    "numbers that are none": (lambda e: e.update(shape=[True]), r"where numbers belong"),
    "text for numbers": (lambda e: e.update(shape="12"), r"where numbers belong"),
    "another dtype": (lambda e: e.update(dtype="float64"), r"up to byte|holds another model"),
    "a dtype that is none": (lambda e: e.update(dtype="load"), r"dtype 'load'"),
    "a dtype that is no text": (lambda e: e.update(dtype=[]), r"must list the tensors of a checkpoint, got"),
    "pieces that are none": (lambda e: e.update(pieces=[1]), r"must list the tensors of a checkpoint, got"),
    "a missing key": (lambda e: e.pop("dtype"), r"got no 'dtype'"),
}  # fmt: skip


@pytest.mark.parametrize("which", BAD_INDEX)
def test_an_index_that_cannot_be_is_refused_without_taking_memory(checkpoint, which) -> None:
    change, message = BAD_INDEX[which]
    target = Target(checkpoint)
    path = checkpoint / "tensors/index.json"
    index = json.loads(path.read_text())
    name = next(name for name, entry in index.items() if len(entry["shape"]) == 2)
    change(index[name])
    path.write_text(json.dumps(index))
    sign(checkpoint)
    verify(checkpoint)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message) as caught:
            load(checkpoint, target)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert str(checkpoint / "tensors") in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "[[", "1", '"x"', "{" * 100_000, '{"a": 1}', "\x00", '{"a": {"b": ' * 50_000])
def test_an_index_that_is_no_index(tmp_path, text) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json must list the tensors of a checkpoint, got .*Use another"):
        read_index(tmp_path)


def test_files_that_are_too_large_to_be_true_are_not_read(checkpoint) -> None:
    for name in ("manifest.json", "state.json", "tensors/index.json"):
        with (checkpoint / name).open("r+b") as file:
            file.truncate(1 << 40)  # sparse
    with pytest.raises(CheckpointError, match=r"manifest\.json must be a JSON object, got [\d,]+ bytes"):
        verify(checkpoint)
    with pytest.raises(CheckpointError, match=r"state\.json must be a JSON object, got [\d,]+ bytes"):
        read_state(checkpoint)
    with pytest.raises(CheckpointError, match=r"index\.json must list the tensors of a checkpoint, got [\d,]+ bytes"):
        read_index(checkpoint / "tensors")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"../x": {"bytes": 1, "sha256": ""}}, r"must list files of its folder, got '\.\./x'"),
        ({"/etc/passwd": {"bytes": 1, "sha256": ""}}, r"must list files of its folder, got '/etc/passwd'"),
        ({"state.json": 7}, r"must hold bytes and sha256 of state\.json, got 7"),
        ({"state.json": {"bytes": "many", "sha256": ""}}, r"must have many bytes, got"),
        ({"/dev/zero": {"bytes": 0, "sha256": ""}}, r"must list files of its folder"),
        ({"tensors": {"bytes": 0, "sha256": ""}}, r"tensors is missing"),
        ({"a\x00b": {"bytes": 0, "sha256": ""}}, r"is missing|cannot be read"),
        ({"a" * 300: {"bytes": 0, "sha256": ""}}, r"a cannot be read: .*File name too long"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(checkpoint, manifest, message) -> None:
    whole = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(whole | manifest))
    with pytest.raises(CheckpointError, match=message):
        verify(checkpoint)


@pytest.mark.parametrize("missing", ["state.json", "tensors/index.json"])
def test_a_manifest_without_a_file_that_is_needed(checkpoint, missing) -> None:
    whole = json.loads((checkpoint / MANIFEST).read_text())
    del whole[missing]
    (checkpoint / MANIFEST).write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=rf"must list the checkpoint's files, but lacks {missing}"):
        verify(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step is -1"),
        ({"step": "9"}, "step is '9'"),
        ({"step": None}, "step is None"),
        ({"step": True}, "step is True"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"best_step": [1]}, r"best_step is \[1\]"),
        ({"loss_sum": {}}, "loss_sum is {}"),
        ({"of_a_later_version": 1}, "of_a_later_version is unknown"),
    ],
)
def test_counters_that_cannot_be(checkpoint, change, message) -> None:
    path = checkpoint / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=rf"state\.json must hold the counters of this version, but {message}\. "):
        read_state(checkpoint)


def test_a_counter_that_is_absent(checkpoint) -> None:
    values = json.loads((checkpoint / "state.json").read_text())
    del values["skipped"]
    (checkpoint / "state.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"but skipped is absent\. Resume with the version that wrote it"):
        read_state(checkpoint)


# The files themselves


def test_every_kind_of_tensor_survives_and_other_tools_read_it(tmp_path) -> None:
    from safetensors.torch import load_file

    tensors = {
        "matrix": torch.randn(4, 5), "number": torch.tensor(3.5), "bf16": torch.randn(3).bfloat16(),
        "empty": torch.zeros(0, 3), "whole": torch.arange(7), "view": torch.randn(6, 4)[::2].t(),
        "nan": torch.tensor([float("nan"), float("inf")]), "half": torch.randn(3).half(), "yes": torch.tensor([True]),
    }  # fmt: skip
    save_tensors(tmp_path / "tensors", tensors, World())
    got = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    load_tensors(tmp_path / "tensors", got, World())
    for name, tensor in tensors.items():
        assert torch.equal(got[name].nan_to_num(7), tensor.nan_to_num(7)) if tensor.is_floating_point() else True
        assert got[name].dtype == tensor.dtype
    theirs = load_file(tmp_path / "tensors/rank-00000.safetensors")
    assert set(theirs) == set(tensors)
    assert torch.equal(theirs["view"], tensors["view"])


def test_a_tensor_of_another_shape_dtype_or_name_is_refused(tmp_path) -> None:
    save_tensors(tmp_path / "tensors", {"a": torch.zeros(3), "b": torch.zeros(2)}, World())
    wanted = {"a": torch.zeros(4), "b": torch.zeros(2).half(), "c": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_tensors(tmp_path / "tensors", wanted, World())
    assert "c: missing; a: expected float32 [4], got float32 [3]; b: expected float16 [2], got float32 [2]. " in str(
        caught.value
    )
    assert "Resume with the configuration that wrote it, or set run.resume=never and another run.name." in str(
        caught.value
    )
