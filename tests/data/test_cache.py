"""The cache: what goes in comes out, from any number of processes, whatever happens to the file."""

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train.config import DataConfig
from xlmrxl_train.data import cache
from xlmrxl_train.data.cache import FeatureTable, open_or_build
from xlmrxl_train.data.cache_folder import cache_folder
from xlmrxl_train.data.examples import Feature
from xlmrxl_train.errors import ConfigError

Built = list[tuple[str, list[Feature]]]


def features(*lengths: int, **columns: Any) -> list[Feature]:
    return [
        Feature(example=-1, input_ids=list(range(length)), columns={"label": length, **columns}) for length in lengths
    ]


BUILT: Built = [("a", features(3)), ("b", features(5, 0, 2)), ("c", features(1))]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def never() -> Built:
    raise AssertionError("built again")


def test_tokens_that_occur_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_CHUNK", 1)  # several record batches
    built = [("a", [Feature(example=-1, input_ids=ids, columns={}) for ids in ([0, 7, 7], [], [2])])]
    seen = np.zeros(9, dtype=bool)
    seen[4] = True
    open_or_build(tmp_path, "f", lambda: built).mark_tokens(seen)
    assert np.flatnonzero(seen).tolist() == [0, 2, 4, 7]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    table = open_or_build(tmp_path / "new", "f1", lambda: BUILT)
    assert len(table) == 5 and table.num_examples == 3 and table.fingerprint == "f1"
    assert table.ids == ["a", "b", "c"] and table.id_of(2) == "c"
    assert table.lengths.tolist() == [3, 5, 0, 2, 1] and table.lengths.dtype == np.int32
    assert table.example_of.tolist() == [0, 1, 1, 1, 2] and table.example_of.dtype == np.int32
    assert [f.input_ids for f in table.features_of(1)] == [[0, 1, 2, 3, 4], [], [0, 1]]
    assert table.feature(4) == Feature(example=2, input_ids=[0], columns={"label": 1})
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            table.feature(wrong)
        with pytest.raises(IndexError):
            table.features_of(wrong)
    again = open_or_build(tmp_path / "new", "f1", never)
    assert again.features_of(2) == table.features_of(2)
    assert (names(tmp_path / "new")) == ["f1.arrow", "f1.lock"]


VALUES = st.fixed_dictionaries(
    {
        "label": st.integers(-(2**40), 2**40),
        "score": st.none() | st.floats(allow_nan=False),
        "labels": st.lists(st.integers(0, 9), max_size=3),
        "offsets": st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)).map(list), min_size=1, max_size=3),
        "text": st.text(max_size=5),
        "words": st.lists(st.text(max_size=3), min_size=1, max_size=2),
        "flag": st.booleans(),
    }
)
FEATURE = st.tuples(st.lists(st.integers(0, 250_000), max_size=6), VALUES)


@settings(deadline=None, max_examples=40)
@given(examples=st.lists(st.lists(FEATURE, min_size=1, max_size=3), max_size=7), chunk=st.integers(2, 5))
def test_any_columns_in_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, examples: list[list[tuple[list[int], dict[str, Any]]]], chunk: int
) -> None:
    scored = [[(ids, columns | {"score": columns["score"] or 0.5}) for ids, columns in some] for some in examples]
    built = [
        (f"id{i}", [Feature(example=i, input_ids=ids, columns=columns) for ids, columns in some])
        for i, some in enumerate(scored)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_CHUNK", chunk)
        table = open_or_build(tmp_path_factory.mktemp("cache"), "f", lambda: built)
    assert [(table.id_of(i), table.features_of(i)) for i in range(table.num_examples)] == built
    assert len(table) == sum(map(len, scored)) == len(table.lengths)


def test_token_ids_take_four_bytes(tmp_path: Path) -> None:
    built = [(str(i), features(100, offsets=[[1, 2]] * 100)) for i in range(1000)]
    open_or_build(tmp_path, "f", lambda: built)
    assert (tmp_path / "f.arrow").stat().st_size < 1000 * 100 * (4 + 8 + 4) + 50_000


def test_a_table_without_examples(tmp_path: Path) -> None:
    table = open_or_build(tmp_path, "f", list)
    assert len(table) == table.num_examples == 0 and table.ids == []
    assert open_or_build(tmp_path, "f", never).lengths.shape == (0,)


def test_columns_of_another_type_later_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_CHUNK", 1)
    built = [("a", features(1, label=1)), ("b", features(1, label="x"))]
    with pytest.raises(TypeError, match=r"^feature column 'label' is of type int64, then "):
        open_or_build(tmp_path, "f", lambda: built)
    assert names(tmp_path) == ["f.lock"]


@pytest.mark.parametrize("damage", ["cut", "cut in the middle", "bit", "empty", "other bytes", "other version"])
def test_a_damaged_file_is_built_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    built = [(str(i), features(50)) for i in range(200)]
    open_or_build(tmp_path, "f", lambda: built)
    file = tmp_path / "f.arrow"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[:-1]
    elif damage == "cut in the middle":
        content = content[: len(content) // 2]
    elif damage == "bit":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content = bytearray()
    elif damage == "other bytes":
        content = bytearray(b"x" * 5000)
    else:
        content = bytearray(_other_version(tmp_path))
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        table = open_or_build(tmp_path, "f", lambda: built)
    assert table.num_examples == 200 and table.features_of(7)[0].input_ids == list(range(50))
    assert caplog.messages[0].startswith(f"cache file {file} is damaged (")
    assert caplog.messages[0].endswith("); it is built again")
    assert FeatureTable(file, "f").num_examples == 200


def _other_version(folder: Path) -> bytes:
    open_or_build(folder, "g", lambda: BUILT)
    return (folder / "g.arrow").read_bytes()


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 100_000), value=st.integers(1, 255))
def test_no_changed_byte_gives_other_features(tmp_path_factory: pytest.TempPathFactory, place: int, value: int) -> None:
    folder = tmp_path_factory.mktemp("cache")
    open_or_build(folder, "f", lambda: BUILT)
    content = bytearray((folder / "f.arrow").read_bytes())
    content[place % len(content)] ^= value
    (folder / "f.arrow").write_bytes(content)
    table = open_or_build(folder, "f", lambda: BUILT)
    assert [[f.input_ids for f in table.features_of(i)] for i in range(3)] == [
        [f.input_ids for f in some] for _, some in BUILT
    ]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build() -> Iterator[tuple[str, list[Feature]]]:
        yield BUILT[0]
        raise ValueError("bad row")

    with pytest.raises(ValueError, match="bad row"):
        open_or_build(tmp_path, "f", build)
    assert names(tmp_path) == ["f.lock"]
    assert open_or_build(tmp_path, "f", lambda: BUILT).num_examples == 3


def test_left_overs_of_killed_processes_go(tmp_path: Path) -> None:
    old, new = tmp_path / "f.arrow.1-a.tmp", tmp_path / "f.arrow.2-b.tmp"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (0, 0))
    open_or_build(tmp_path, "f", lambda: BUILT)
    assert not old.exists() and new.exists()


def _worker(folder: Path, barrier: Any, answers: Any, lock: bool) -> None:
    if not lock:
        cache.fcntl.flock = _no_locks  # type: ignore[assignment]
    builds = 0

    def build() -> Iterator[tuple[str, list[Feature]]]:
        nonlocal builds
        builds += 1
        for index in range(300):
            time.sleep(0.001)
            yield str(index), features(index % 7 + 1)

    barrier.wait()
    table = open_or_build(folder, "f", build)
    tokens = sum(sum(feature.input_ids) for i in range(300) for feature in table.features_of(i))
    answers.put((builds, table.num_examples, tokens))


def _no_locks(*_: Any) -> None:
    raise OSError("no locks here")


@pytest.mark.parametrize("lock", [True, False])
def test_four_processes_at_once(tmp_path: Path, lock: bool) -> None:
    context = multiprocessing.get_context("fork")  # spawning four interpreters takes longer than the test
    barrier, answers = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_worker, args=(tmp_path, barrier, answers, lock)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sum(builds for builds, *_ in found) == (1 if lock else 4)
    assert len({answer[1:] for answer in found}) == 1
    assert (names(tmp_path)) == ["f.arrow", "f.lock"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        open_or_build(tmp_path / "file" / "cache", "f", lambda: BUILT)
    assert str(caught.value) == (
        f"data.cache must be a folder that can be written, got {tmp_path / 'file' / 'cache'} (Not a directory). "
        "Set data.cache or $XLMRXL_CACHE, or make room there."
    )

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(ConfigError, match=r"got .* \(No space left on device\)\. Set data\.cache"):
        open_or_build(tmp_path, "f", lambda: BUILT)
    assert not (tmp_path / "f.arrow").exists()


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMRXL_CACHE", "/there")
    assert cache_folder(DataConfig(cache="~/mine")) == Path.home() / "mine"
    assert cache_folder(DataConfig()) == Path("/there")
    monkeypatch.delenv("XLMRXL_CACHE")
    assert cache_folder(DataConfig()) == Path.home() / ".cache" / "xlmrxl_train"
