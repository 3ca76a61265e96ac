"""Random input never ends in anything but success or a `UserError`, and never leaves a run folder."""

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmrxl_train.cli import main
from xlmrxl_train.cli.typed import keys_of
from xlmrxl_train.config import (
    Config,
    DataConfig,
    DatasetConfig,
    FilesConfig,
    FileSet,
    SequenceClassificationConfig,
    TokenClassificationConfig,
)
from xlmrxl_train.data.formats import READERS
from xlmrxl_train.data.sources import open_source
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import UserError
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.sequence_classification import SequenceClassification
from xlmrxl_train.tasks.token_classification import TokenClassification

FUZZ = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
TOKENIZER = Tokenizer.from_path(SAMPLE_TOKENIZER)
KEYS = st.sampled_from([key.name for key in keys_of(Config, {})] + ["model", "task", "strategy", "dataset", "nope.x"])
PIECES = st.sampled_from(
    ["", "null", "true", "-1", "1e999", "nan", "[", "]", "[a,b]", "{a: 1}", "${seed}", "${", "'", '"', "\\", ",", "=",
     "~", "../x", "/dev/null", "é", "\u2028", "\x00", "9" * 30, "tiny", "range(1,3)"]
)  # fmt: skip
VALUES = st.one_of(st.lists(PIECES, max_size=3).map("".join), st.text(max_size=12))


@settings(FUZZ, max_examples=25)
@given(st.lists(st.tuples(KEYS, VALUES).map("=".join) | st.text(max_size=8), max_size=6))
def test_any_words_compose_or_are_refused(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(["--cfg", "job", "recipe=demo", *(word for word in words if not word.startswith("-"))])
        assert code in (0, 2) and "Traceback" not in said.getvalue()
        assert bool(said.getvalue()) == (code == 2)
        assert not os.listdir(folder)  # noqa: PTH208


TREE: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["en", "no", "text", "{language}.tsv", "*", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["path", "train", "a"]), inner),
    max_leaves=5,
)
SECTIONS = st.dictionaries(
    st.sampled_from(["name", "kind", "languages", "columns", "labels", "files", "hub", "sample", "metrics", "nope"]),
    TREE,
    max_size=5,
)


@settings(FUZZ, max_examples=15)
@given(SECTIONS.map(lambda tree: repr(tree).encode()) | st.binary(max_size=60))
def test_any_data_set_composes_or_is_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("conf/dataset").mkdir(parents=True)
        Path("conf/dataset/d.yaml").write_bytes(content.replace(b"None", b"null"))
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            assert main(["--config-dir", "conf", "--cfg", "job", "recipe=demo", "dataset=d"]) in (0, 2)
        assert os.listdir(folder) == ["conf"]  # noqa: PTH208


BYTES = st.lists(
    st.sampled_from(
        [b"text\tlabel\n", b"x\ta\n", b"a,b\n", b'"', b'{"text": "x", "label": "a"}\n', b"{", b"[1]\n", b"\xff", b"\0",
         b"\r\n", b"\n", b"\xef\xbb\xbf", b"1\tx" + b"\t_" * 8 + b"\n", b"# text\n", b"PAR1", b"\x1f\x8b\x08",
         b"\\ud800"]
    )
    | st.binary(max_size=20),
    max_size=8,
).map(b"".join)  # fmt: skip


@settings(FUZZ, max_examples=300)
@given(BYTES, st.sampled_from(sorted(READERS)), st.booleans(), st.sampled_from(["", ".gz"]), st.booleans())
def test_any_bytes_are_read_or_refused(content: bytes, kind: str, header: bool, end: str, multi: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"d{end}").write_bytes(content)
        files = FileSet(path=f"d{end}", format=kind, header=header, column_names=[] if header else ["text", "label"])
        dataset = DatasetConfig(
            name="d", languages=["en"], columns={"text": "text", "label": "label"}, labels=["a", "b"],
            files=FilesConfig(train=[files]),
        )  # fmt: skip
        problem = "multi_label_classification" if multi else "single_label_classification"
        task = SequenceClassification(SequenceClassificationConfig(problem_type=problem), dataset, None)  # type: ignore[arg-type]
        with contextlib.suppress(UserError):
            source = open_source(dataset, DataConfig(source="files", root=folder))
            list(task.examples(source.rows("train", "en")))


@settings(FUZZ, max_examples=100)
@given(BYTES, st.sampled_from(sorted(READERS)))
def test_any_bytes_are_sentences_of_tagged_words_or_refused(content: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "d").write_bytes(content)
        dataset = DatasetConfig(
            name="d", languages=["en"], columns={"tokens": "tokens", "tags": "tags"}, labels=["a", "X"],
            files=FilesConfig(train=[FileSet(path="d", format=kind)]),
        )  # fmt: skip
        task = TokenClassification(TokenClassificationConfig(), dataset, TOKENIZER)
        with contextlib.suppress(UserError):
            source = open_source(dataset, DataConfig(source="files", root=folder))
            examples = list(task.examples(source.rows("train", "en")))
            assert all(task.encode(examples))
