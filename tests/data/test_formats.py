"""Every file format: what it gives, and what is said about files that break it."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.examples import place_of_token
from xlmrxl_train.data.formats import READERS, format_of, read_records
from xlmrxl_train.errors import ConfigError, DataError, UserError

SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "A b c.",
                    "qas": [{"id": "q1", "question": "Who?", "answers": [{"text": "b", "answer_start": 2}]}],
                }
            ],
        }
    ]
}
WORD = "{}\t{}\tlemma\t{}\tX\t_\t0\troot\t_\t_\n"


def read(file: Path, content: bytes | str, wanted: tuple[str, ...] = (), **settings: Any) -> list[dict[str, Any]]:
    return [values for _, values in places(file, content, wanted, **settings)]


def places(file: Path, content: bytes | str, wanted: tuple[str, ...] = (), **settings: Any) -> list[tuple[str, Any]]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    files = FileSet(path=file.name, **settings)
    return list(read_records(file, format_of(file, files, "dataset.files.train.0"), files, wanted))


def fault(file: Path, content: bytes | str, wanted: tuple[str, ...] = (), **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        places(file, content, wanted, **settings)
    return str(caught.value).replace(f"{file.parent}/", "")


def table(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


# What each format gives ------------------------------------------------------------------------------------------


def test_tsv(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    assert places(file, 'a\tb\nx "y"\t1\n z\t\n') == [
        (f"{file}:2", {"a": 'x "y"', "b": "1"}),
        (f"{file}:3", {"a": " z", "b": ""}),
    ]
    assert read(file, "x\t1\ny\t2", header=False, column_names=["c", "d"]) == [
        {"c": "x", "d": "1"},
        {"c": "y", "d": "2"},
    ]
    assert read(file, 'a\tb\n"x\ty"\tz\n', quoting=True) == [{"a": "x\ty", "b": "z"}]
    assert read(file, "a||b\nx||y\n", separator="||") == [{"a": "x", "b": "y"}]


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    content = 'a,b\n"x, ""y""\nz",1\nw,2\n'
    assert places(file, content) == [(f"{file}:2", {"a": 'x, "y"\nz', "b": "1"}), (f"{file}:4", {"a": "w", "b": "2"})]
    assert read(file, "a;b\nx;y\n", separator=";") == [{"a": "x", "b": "y"}]
    assert read(file, 'a,b\n"x,y\n', quoting=False) == [{"a": '"x', "b": "y"}]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_bom_crlf_last_blank_line_and_other_line_separators(tmp_path: Path, name: str) -> None:
    content = "\ufeffa\tb\r\nx\u2028y\x85\t1\r\n\r\n".encode()
    content = gzip.compress(content) if name.endswith("gz") else content
    assert read(tmp_path / name, content) == [{"a": "x\u2028y\x85", "b": "1"}]


def test_a_huge_field(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert read(tmp_path / "a.csv", f'a,b\n"{long}",1\n') == [{"a": long, "b": "1"}]


def test_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert places(file, '{"a": "x", "n": [1, 2.5]}\n{"a": null}\n\n') == [
        (f"{file}:1", {"a": "x", "n": [1, 2.5]}),
        (f"{file}:2", {"a": None}),
    ]
    assert read(file, '{"a": "\\ud83d\\ude00"}') == [{"a": "😀"}]


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    content = table(a=["x", "y"], label=[1, 2], more=[[1.5], []], unread=pa.array([b"", b""]))
    content = gzip.compress(content) if name.endswith("gz") else content
    assert places(file, content, ("a", "label", "more")) == [
        (f"{file} row 0", {"a": "x", "label": 1, "more": [1.5]}),
        (f"{file} row 1", {"a": "y", "label": 2, "more": []}),
    ]


def test_conll(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    tabs = "-DOCSTART-\tO\n\nNew York\tB-LOC\n\u00a0\tO\n\n \n\nb\tO"
    assert places(file, tabs) == [
        (f"{file}:3", {"tokens": ["New York", "\u00a0"], "tags": ["B-LOC", "O"]}),
        (f"{file}:8", {"tokens": ["b"], "tags": ["O"]}),
    ]
    assert read(file, "EU NNP B-NP B-ORG\n. . O O\n") == [{"tokens": ["EU", "."], "tags": ["B-ORG", "O"]}]
    assert read(file, "0\ta\tO\n1\tb\tO\n", column_names=["index", "tokens", "tags"]) == [
        {"index": ["0", "1"], "tokens": ["a", "b"], "tags": ["O", "O"]}
    ]
    assert read(file, "a b|O\n", separator="|") == [{"tokens": ["a b"], "tags": ["O"]}]


def test_conllu(tmp_path: Path) -> None:
    file = tmp_path / "a.conllu"
    lines = [
        "# sent_id = s1\n# text = vámonos al mar\n",
        WORD.format("1-2", "vámonos", "_"),
        WORD.format("1", "vamos", "VERB"),
        WORD.format("2", "nos", "PRON"),
        WORD.format("2.1", "empty", "X"),
        WORD.format("3", "mar", "NOUN"),
        "\n",
        WORD.format("1", "_", "PUNCT"),
    ]
    assert places(file, "".join(lines)) == [
        (
            f"{file}:1",
            {
                "sent_id": "s1",
                "text": "vámonos al mar",
                "tokens": ["vamos", "nos", "mar"],
                "tags": ["VERB", "PRON", "NOUN"],
                "xpos": ["X", "X", "X"],
            },
        ),
        (f"{file}:9", {"tokens": ["_"], "tags": ["PUNCT"], "xpos": ["X"]}),
    ]


def test_squad(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert places(file, json.dumps(SQUAD, indent=1)) == [
        (
            f"{file} data[0].paragraphs[0].qas[0]",
            {
                "id": "q1",
                "title": "T",
                "context": "A b c.",
                "question": "Who?",
                "answers": {"text": ["b"], "answer_start": [2]},
            },
        )
    ]


def test_text(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "one\n\n two \n") == [{"text": "one"}, {"text": ""}, {"text": " two "}]


# What is said about broken files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.tsv", "a,b"),
        ("a.csv", "a,b"),
        ("a.jsonl", "{}"),
        ("a.conll", "a O"),
        ("a.conllu", "# comment"),
        ("a.json", "{"),
        ("a.txt", "a"),
    ],
)
def test_bytes_that_are_not_text(tmp_path: Path, name: str, line: str) -> None:
    first = f"{line}\n".encode()
    assert fault(tmp_path / name, first + b"abc \xff\n") == (
        f"{name}:2: expected UTF-8, got the byte 0xff at byte 5 of the line. Save the file as UTF-8."
    )
    assert fault(tmp_path / name, first + b"abc\0\n") == (
        f"{name}:2: expected text, got a null byte. Save the file as UTF-8 text."
    )


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.conll", "a.conllu", "a.txt", "a.txt.gz"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    content = gzip.compress(b"") if name.endswith("gz") else b""
    expected = f"{name}: expected at least one record, found none. Fill the file, or take it out of the data set."
    assert fault(tmp_path / name, content) == expected
    if name in ("a.tsv", "a.csv"):
        assert fault(tmp_path / name, b"only,\theader\n") == expected


def test_broken_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(b"line\n" * 1000)
    for content in (b"line\n", packed[:-9], packed[:20] + b"\0\0\0\0" + packed[24:]):
        message = fault(tmp_path / "a.txt.gz", content)
        assert message.startswith("a.txt.gz: expected a whole gzip file, got a damaged one (")
        assert message.endswith("). Fetch it again.")


def test_a_folder_or_a_loop_is_not_a_file(tmp_path: Path) -> None:
    files = FileSet(path="x")
    with pytest.raises(DataError) as caught:
        list(read_records(tmp_path, "text", files, ()))
    assert str(caught.value) == f"{tmp_path}: expected a file that can be read, got Is a directory. Check the path."
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    with pytest.raises(DataError, match=r"loop\.txt: expected a file that can be read, got Too many levels"):
        list(read_records(tmp_path / "loop.txt", "text", files, ()))


REMEDY = "Mend the line, or set the separator, quoting or column_names of its files."


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.tsv", "a\tb\nx\ty\tz\n", {}, f"a.tsv:2: expected 2 fields (a, b), found 3. {REMEDY}"),
        ("a.tsv", "a\tb\nx\n", {}, f"a.tsv:2: expected 2 fields (a, b), found 1. {REMEDY}"),
        ("a.csv", 'a,b\n"x\ny",1\nz\n', {}, f"a.csv:4: expected 2 fields (a, b), found 1. {REMEDY}"),
        ("a.tsv", "a\tb\n\nx\ty\n", {}, "a.tsv:2: expected 2 fields, found a blank line. Remove it."),
        (
            "a.csv",
            'a,b\n"x" y,1\n',
            {},
            "a.csv:2: expected fields separated by ',' and quoted by '\"', found a row that is not "
            "(',' expected after '\"'). Mend its quotes, or set quoting of its files to false.",
        ),
        (
            "a.csv",
            'a,b\nx,1\n"y,\n2\n',
            {},
            "a.csv:3: expected fields separated by ',' and quoted by '\"', found a row that is not "
            "(unexpected end of data). Mend its quotes, or set quoting of its files to false.",
        ),
        (
            "a.tsv",
            "a\tb\ta\nx\ty\tz\n",
            {},
            "a.tsv:1: expected column names that differ, found 'a' more than once. "
            "Rename one, or set header and column_names of its files.",
        ),
        (
            "a.csv",
            "a,b\n",
            {"separator": "||"},
            "a.csv: separator must be one character, and no quote, where quoting is on, got '||'. "
            "Set another separator, or quoting to false.",
        ),
        (
            "a.tsv",
            "a\tb\n",
            {"header": False},
            "a.tsv: column_names must be given where header is false, and only there, "
            "got header=false and column_names=[]. Set header or column_names.",
        ),
        (
            "a.tsv",
            "a\tb\n",
            {"column_names": ["a"]},
            "a.tsv: column_names must be given where header is false, and only there, "
            "got header=true and column_names=['a']. Set header or column_names.",
        ),
        ("a.jsonl", "{}\n\n{}\n", {}, "a.jsonl:2: expected a JSON object, found a blank line. Remove it."),
        (
            "a.jsonl",
            "{}\n[1]\n",
            {},
            'a.jsonl:2: expected a JSON object, found list. Write each line as {"column": value, ...}.',
        ),
        (
            "a.jsonl",
            '{"a": }\n',
            {},
            "a.jsonl:1: expected JSON, found a fault (Expecting value: line 1 column 7 (char 6)). Mend the line.",
        ),
        ("a.jsonl", '{"a": NaN}\n', {}, "a.jsonl:1: expected JSON, found a fault (NaN is not JSON). Mend the line."),
        (
            "a.jsonl",
            '{"a": "\\ud800"}\n',
            {},
            "a.jsonl:1: expected JSON, found a fault ('utf-8' codec can't encode character '\\ud800' in position 7: "
            "surrogates not allowed). Mend the line.",
        ),
        (
            "a.json",
            '{"data":\n [}',
            {},
            "a.json:2: expected JSON, found a fault (Expecting value: line 2 column 3 (char 11)). Mend the line.",
        ),
        ("a.json", "[]", {}, "a.json: expected 'data' as list, as in SQuAD's JSON, found NoneType. Mend it."),
        (
            "a.json",
            '{"data": [{"paragraphs": [{"context": 5}]}]}',
            {},
            "a.json data[0].paragraphs[0]: expected 'context' as str, as in SQuAD's JSON, found int. Mend it.",
        ),
        (
            "a.conll",
            "a\tO\nb\n",
            {},
            "a.conll:2: expected 2 columns, found 1. Mend the line, or set the separator or column_names of its files.",
        ),
        (
            "a.conll",
            "a\n",
            {},
            "a.conll:1: expected 2 columns, found 1. Mend the line, or set the separator or column_names of its files.",
        ),
        (
            "a.conllu",
            WORD.format(1, "a", "X") + "2\tb\n",
            {},
            "a.conllu:2: expected the 10 columns of CoNLL-U, found 2. Mend the line.",
        ),
    ],
)
def test_broken_rows(tmp_path: Path, name: str, content: str, settings: dict[str, Any], message: str) -> None:
    assert fault(tmp_path / name, content, **settings) == message


def test_json_without_end(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json"):
        message = fault(tmp_path / name, "[" * 200_000)
        assert message.startswith(f"{name}:1: expected JSON, found a fault (maximum recursion depth")


def test_conllu_with_a_wrong_id(tmp_path: Path) -> None:
    message = fault(tmp_path / "a.conllu", "\n" + WORD.format("one", "a", "X"))
    assert message == (
        "a.conllu:2: expected the id 1 of the next word, a range (1-2) or an empty node (1.1), found 'one'. "
        "Mend the line."
    )


def test_conllu_with_a_word_that_is_missing(tmp_path: Path) -> None:
    content = "# text = a b\n" + WORD.format("1", "a", "X") + WORD.format("3", "b", "X")
    message = fault(tmp_path / "a.conllu", content)
    assert message.startswith(
        "a.conllu:3: expected the id 2 of the next word, a range (1-2) or an empty node (1.1), found"
    )


def test_a_conllu_sentence_of_no_sense_is_named(tmp_path: Path) -> None:
    message = fault(tmp_path / "a.conllu", "\n" + WORD.format("2-1", "a", "X"))
    assert message.startswith("a.conllu:2: expected a CoNLL-U sentence, found ") and message.endswith(". Mend it.")


def test_a_token_has_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(
        "# text = vámonos\n"
        + WORD.format("1-2", "vámonos", "_")
        + WORD.format("1", "vamos", "VERB")
        + WORD.format("1.1", "e", "X")
        + WORD.format("2", "nos", "PRON")
    )
    (tmp_path / "a.conll").write_text("-DOCSTART-\tO\n\na\tO\n-DOCSTART-\tO\nb\tO\n")
    for name, lines in (("a.conllu", [3, 5]), ("a.conll", [3, 5])):
        file = tmp_path / name
        [(where, values)] = read_records(file, name[2:], FileSet(path="x"), ())
        assert len(values["tokens"]) == 2
        assert [place_of_token(where, index) for index in (0, 1)] == [f"{file}:{line}" for line in lines]
    assert place_of_token("owner/name/en/train row 7", 0) == "owner/name/en/train row 7, token 1"


def test_broken_parquet(tmp_path: Path) -> None:
    whole = table(a=["x"] * 100, when=pa.array([0] * 100, pa.timestamp("s")))
    assert fault(tmp_path / "a.parquet", whole, ("b",)) == (
        "a.parquet: expected a column 'b', found 'a', 'when'. "
        "Set dataset.columns, or the columns, column_names, header and separator of its files."
    )
    assert fault(tmp_path / "a.parquet", whole) == (
        "a.parquet: column 'when': expected text, numbers or lists of them, got timestamp[ms]. Convert the column."
    )
    for content in (b"", b"PAR1", whole[:-20], b"x" * 500):
        message = fault(tmp_path / "a.parquet", content)
        assert message.startswith("a.parquet: expected a parquet file, got ") and message.endswith("Fetch it again.")
    assert fault(tmp_path / "a.parquet", table(a=pa.array([], pa.string()))).startswith("a.parquet: expected at least")


def test_formats_by_name(tmp_path: Path) -> None:
    def named(name: str, format_: str = "auto") -> str:
        return format_of(Path(name), FileSet(format=format_), "dataset.files.test.0")

    assert [named(name) for name in ("a.tsv.gz", "a.de.jsonl", "a.json", "a.txt.gz", "a.conllu")] == [
        "tsv",
        "jsonl",
        "squad",
        "text",
        "conllu",
    ]
    assert named("a.xyz", "conll") == "conll"
    choices = "tsv | csv | jsonl | parquet | conll | conllu | squad | text | udhr"
    with pytest.raises(ConfigError) as caught:
        named("tatoeba.afr-eng.afr")
    assert str(caught.value) == (
        f"dataset.files.test.0.format must be {choices} for tatoeba.afr-eng.afr, got auto. Set it."
    )
    with pytest.raises(ConfigError) as caught:
        named("a.tsv", "excel")
    assert str(caught.value) == f"dataset.files.test.0.format must be auto | {choices}, got 'excel'."


# Random files ----------------------------------------------------------------------------------------------------

CHUNKS = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\r", b"\t", b",", b'"', b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b'"a": '),
        *(b"\\ud800", b"1-2", b"1.1", b"# sent_id = x", b"_\t" * 9, b"-DOCSTART-", b"data", b"PAR1", b" ", b"\xc3\xa9"),
        *(b'{"a": 1}\n', WORD.format(1, "a", "X").encode(), b"a\tO\n", json.dumps(SQUAD).encode(), b"1e999"),
        b"9" * 5000,
    ]
)


@pytest.mark.parametrize("format_", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.lists(CHUNKS, max_size=12).map(b"".join)), packed=st.booleans())
def test_random_files_give_rows_or_one_clear_fault(tmp_path: Path, format_: str, content: bytes, packed: bool) -> None:
    file = tmp_path / ("random.gz" if packed else "random")
    file.write_bytes(gzip.compress(content, 1) if packed else content)
    for settings_ in ({}, {"header": False, "column_names": ["a", "b"]}):
        files = FileSet(path="x", format=format_, **settings_)  # type: ignore[arg-type]
        try:
            for where, values in read_records(file, format_, files, ()):
                assert where.startswith(str(file)) and isinstance(values, dict)
        except DataError as error:
            assert str(error).startswith(str(file))
        except ConfigError:
            assert format_ in ("tsv", "csv") and "column_names" in sys.exc_info()[1].args[0]  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 200))
def test_damaged_parquet_gives_rows_or_one_clear_fault(tmp_path: Path, place: int, byte: int, cut: int) -> None:
    content = bytearray(table(a=["x", "yy"] * 20, b=list(range(40))))
    content[place % len(content)] = byte
    (tmp_path / "a.parquet").write_bytes(content[: len(content) - cut // 10 * (cut > 100)])
    try:
        list(read_records(tmp_path / "a.parquet", "parquet", FileSet(path="x"), ()))
    except DataError as error:
        assert "a.parquet" in str(error)
