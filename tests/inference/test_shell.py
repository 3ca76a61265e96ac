"""`xlmrxl run` and `xlmrxl predict` on lines, some of them bad."""

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.inference.folders import saved
from tests.model.reference import configuration
from xlmrxl_train import Tokenizer, load_config, pipeline
from xlmrxl_train.cli import main
from xlmrxl_train.cli.run import TASKS
from xlmrxl_train.config import Config, to_dict
from xlmrxl_train.inference.making import PIPELINES
from xlmrxl_train.model import XLMRobertaXLEncoderDecoder

Capture = pytest.CaptureFixture[str]
LINES = "hello <mask>\n\nno mask here\nare you <mask>, world?\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model."""
    return saved(tmp_path_factory.mktemp("mlm"), "MaskedLM")


def given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Let standard input hold something."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_every_pipeline_is_known_to_the_shell() -> None:
    assert set(TASKS) == set(PIPELINES)


def test_a_pipe_from_a_shell(model: Path, repository: Path) -> None:
    line = f"echo 'hello <mask>' | {sys.executable} -m xlmrxl_train run --task fill-mask --model {model} --device -1"
    line += " --dtype bfloat16"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stderr == ""
    best = pipeline("fill-mask", model, device=-1, dtype="bfloat16")("hello <mask>")
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1"] * 5
    assert [row[4] for row in rows] == [answer["sequence"] for answer in best]
    assert float(rows[0][1]) == pytest.approx(best[0]["score"], rel=1e-4)


def test_bad_lines_are_reported_and_take_no_others_with_them(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ["run", "--task", "fill-mask", "--model", str(model), "--device=cpu", "--json", "--top-k", "2"]
    given(monkeypatch, LINES.encode() + b"\xff<mask>\n")
    assert main([*words, "--on-error", "skip"]) == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [(row["line"], len(row["result"])) for row in rows] == [(1, 2), (4, 2)]
    assert said.err.splitlines() == [
        "error: standard input:2: expected an input, found a blank line. Remove it.",
        "error: standard input:3: fill-mask must have <mask> in the text, found none. Put <mask> where a token is to "
        "be guessed.",
        "error: standard input:5: expected UTF-8, got the byte 0xff at byte 1 of the line. Save the file as UTF-8.",
        "left out: 3 of 5",
    ]
    given(monkeypatch, LINES.encode())
    assert main(words) == 2
    said = capsys.readouterr()
    assert [json.loads(line)["line"] for line in said.out.splitlines()] == [1]
    assert said.err.startswith("error: standard input:2: ")


class Typed(io.TextIOWrapper):
    """Standard input that someone types."""

    def isatty(self) -> bool:
        return True


def test_who_types_sees_each_answer_at_once(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(io.BytesIO(b"hello <mask>\nno mask\n")))
    assert main(["run", "--task", "fill-mask", "--model", str(model), "--device=-1", "--top-k=1"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("1\t") and len(said.out.splitlines()) == 1
    assert said.err.startswith("reading standard input, a line is a text with <mask>; Ctrl-D ends it\nerror: standard ")


def test_a_file_appears_whole_or_not_at_all(model: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in.txt").write_text("\ufeff" + LINES)
    words = ["run", "--task", "fill-mask", "--model", str(model), "--device=-1", "--input", str(tmp_path / "in.txt")]
    words += ["--output", str(tmp_path / "out.txt")]
    (tmp_path / "out.txt").write_text("old")
    assert main(words) == 2
    assert (tmp_path / "out.txt").read_text() == "old"
    assert main([*words, "--on-error=skip", "targets=[hello, a]"]) == 1
    assert [line.split("\t")[0] for line in (tmp_path / "out.txt").read_text().splitlines()] == ["1", "1", "4", "4"]
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.txt"}
    assert "in.txt:2: " in capsys.readouterr().err


def test_a_pipe_is_written_into_and_a_link_stays_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "--task", "fill-mask", "--model", str(model), "--device=-1", "--top-k=1", "--output"]
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    given(monkeypatch, b"hello <mask>\n")
    assert main([*words, str(tmp_path / "pipe")]) == 0
    assert os.read(reader, 1000).startswith(b"1\t") and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").write_text("old")
    given(monkeypatch, b"hello <mask>\n")
    assert main([*words, str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text().startswith("1\t")


BLANK = "expected an input, found a blank line. Remove it."
PAIR_OF_THREE = "expected a text, or two with a tab between, found 3. Mend the line."
NO_CONTEXT = "expected a question, a tab and a context, found 1 texts. Mend the line."
ONE_CHOICE = "expected a text, a tab, and choices with tabs between, at least two, found 1 choices. Mend the line."


@pytest.mark.parametrize(
    ("task", "head", "line", "bad", "message"),
    [
        ("text-classification", "SequenceClassification", "hello\tworld", "a\tb\tc", PAIR_OF_THREE),
        ("question-answering", "QuestionAnswering", "how are you\tfine, thanks", "no context", NO_CONTEXT),
        ("multiple-choice", "MultipleChoice", "how are you\tfine\tworld", "one\tchoice", ONE_CHOICE),
        ("token-classification", "TokenClassification", "hello world", " ", BLANK),
        ("sentence-embeddings", "", "hello world", " ", BLANK),
        ("text-generation", "CausalLM", "hello", " ", BLANK),
    ],
)
def test_what_a_line_is(
    task: str, head: str, line: str, bad: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    folder = saved(tmp_path / "m", head)
    (tmp_path / "in.txt").write_text(f"{line}\n{bad}\n")
    words = ["run", "--task", task, "--model", str(folder), "--input", str(tmp_path / "in.txt"), "--device", "cpu"]
    words += ["stride=12"] if task == "question-answering" else []
    assert main([*words, "--on-error", "skip"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("1\t") and all(row.count("\t") >= 1 for row in said.out.splitlines())
    assert said.err.splitlines()[0].endswith(f"in.txt:2: {message}")
    assert said.err.splitlines()[1:] == ["left out: 1 of 2"]


def test_lines_of_json_and_options_by_name(tmp_path: Path, capsys: Capture) -> None:
    folder = saved(tmp_path / "m", "TokenClassification")
    (tmp_path / "in.jsonl").write_text('["hello", "world"]\n{"a": \n')
    words = ["run", "--task=token-classification", f"--model={folder}", f"--input={tmp_path / 'in.jsonl'}", "--json"]
    words += ["is_split_into_words=true", "ignore_labels=[]", "--device=-1", "--on-error=skip", "--dtype=bfloat16"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert [entry["word"] for entry in json.loads(said.out)["result"]] == ["hello", "world"]
    assert "in.jsonl:2: expected JSON, found a fault" in said.err


FILL = ["--task=fill-mask", "--model=m"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", *FILL, "x"], "run takes flags and key=value, got x. Write --input x for a file."),
        (["run", *FILL, "device=0"], "device is a flag of run, got device=0. Write --device 0."),
        (["run", "--model", "m"], "run needs --task, got none. Write --task fill-mask."),
        (["run", "--task", "fil-mask", "--model", "m"], "--task must be fill-mask | text-classification | "),
        (["run", *FILL, "--tsk", "a"], "--tsk is not a flag. Did you mean --task?"),
        (["run", "--model=m", "--task"], "--task must have a value, got nothing. Write --task fill-mask."),
        (["run", *FILL, "--on-error=go"], "--on-error must be stop | skip, got 'go'."),
        (["run", "--task=fill-mask", "--model=m", "a=[1"], "a must be a number, a word or a [list], got [1. Quote it."),
        (
            ["run", "--task=fill-mask", "--model=./m", "--output=no/where"],
            "--output must be a file in a folder that",
        ),
        (["run", *FILL, "return_tensors=true"], "return_tensors is for Python, got return_tensors=true. Leave it out."),
        (["run", *FILL, "a=2020-13-45"], "a must be a number, a word or a [list], got 2020-13-45. Quote it."),
        (["run", *FILL, "--output=~no-such-user/x"], "--output must be a path, got ~no-such-user/x, whose home"),
        (["run", *FILL, f"--output={'x' * 300}"], "--output must be a path with names of at most 255 bytes, got xxx"),
        (["run", "--task=fill-mask", "--model=./m", "--output=."], "folder that exists, got a folder. Choose another."),
        (["run", "--task=fill-mask", "--model=./m", "--device=cpu"], "model: folder not found: ./m (looked from"),
        (["predict", "--input", "x"], "predict needs one run folder, model folder or Hub id, got none. Write"),
        (["predict", "x"], "predict needs --input, got none. Write --input pairs.tsv."),
        (["predict", "x", "--input", "y"], "x is not a run folder: it does not exist."),
    ],
)
def test_a_wrong_word_is_named(
    words: list[str], message: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and len(said.splitlines()) == 1


def test_no_input_and_no_place_for_output(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    given(monkeypatch, b"")
    words = ["run", "--task", "fill-mask", "--model", str(model), "--device", "-1"]
    assert main(words) == 2
    assert "standard input: expected at least one line, found none. Give some input." in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)  # `xlmrxl run ... <&-`
    assert main(words) == 2
    assert "standard input: expected at least one line, found it closed. Give some input." in capsys.readouterr().err
    given(monkeypatch, LINES.encode())
    assert main([*words, "--output", "/proc/x"]) == 2
    assert "--output must be a file that can be written, got /proc/x (" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "predict"])
def test_help(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    assert "--on-error skip" in capsys.readouterr().out
    assert main([command]) == 2


# predict


@functools.cache
def _configuration(*words: str) -> Config:
    return load_config([*words, "run.dir=unused"])


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder with a model of random weights, as training leaves it."""

    def make(head: str, *words: str) -> Path:
        config = _configuration(*words)
        names = list(config.dataset.labels)
        options: dict[str, Any] = {"id2label": dict(enumerate(names))} if head.endswith("sification") else {}
        folder = tmp_path / "run"
        saved(folder / "model", head, initializer_range=0.4, **options)
        (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
        return folder

    return make


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


PAIRS = [("hello world", "how are you"), ("are you fine", "thanks"), ("how", "fine, thanks")]


@pytest.mark.parametrize("header", ["premise\thypothesis", "other\ttext_pair\ttext"])
def test_labels(header: str, trained: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = trained("SequenceClassification", "recipe=xnli")
    names = header.split("\t")
    lines = []
    for text, pair in PAIRS:
        cells = {"text": text, "text_pair": pair, "premise": text, "hypothesis": pair, "other": "x"}
        lines.append("\t".join(cells[name] for name in names))
    lines.insert(1, "only one")
    (tmp_path / "in.tsv").write_text("\n".join([header, *lines]) + "\n")
    words = ["predict", str(run), "--input", str(tmp_path / "in.tsv"), "--output", str(tmp_path / "out.jsonl")]
    words += ["--device", "-1"]
    assert main(words) == 2
    assert not (tmp_path / "out.jsonl").exists()
    assert f"in.tsv:3: expected {len(names)} fields (" in capsys.readouterr().err
    assert main([*words, "--on-error", "skip"]) == 1
    wanted = pipeline("text-classification", run, device=-1)(
        [{"text": text, "text_pair": pair} for text, pair in PAIRS]
    )
    assert rows_of(tmp_path / "out.jsonl") == [
        {"line": line, "prediction": answer["label"], "confidence": pytest.approx(answer["score"], abs=1e-3)}
        for line, answer in zip((2, 4, 5), wanted, strict=True)
    ]


def test_tags(trained: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = trained("TokenClassification", "recipe=panx")
    (tmp_path / "in.jsonl").write_text(
        '{"tokens": ["hello", "world"]}\n{"tokens": "are you fine"}\n{"tokens": []}\n5\n'
    )
    words = ["predict", str(run), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main([*words, "--device=cpu", "--on-error=skip"]) == 1
    said = capsys.readouterr().err
    assert "in.jsonl:3: column 'tokens' must hold a list of words, at least one, got []." in said
    assert "in.jsonl:4: expected a JSON object, found 5. Write each line as" in said
    sentences = [["hello", "world"], ["are", "you", "fine"]]
    wanted = pipeline("ner", run, device=-1)(sentences, is_split_into_words=True, ignore_labels=[])
    for row, sentence, answer in zip(rows_of(tmp_path / "out.jsonl"), sentences, wanted, strict=True):
        assert row["tokens"] == sentence
        assert row["prediction"] == [entry["entity"] for entry in answer]
    (tmp_path / "in.conll").write_text("hello O\nworld O\n\nare O\nyou O\nfine O\n")
    words[3] = str(tmp_path / "in.conll")
    assert main([*words, "--device=cpu"]) == 0
    again = rows_of(tmp_path / "out.jsonl")
    assert [(row["row"], row["tokens"]) for row in again] == list(enumerate(sentences))


def test_answers(trained: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = trained("QuestionAnswering", "recipe=xquad")
    item = {"question": "how are you", "context": "hello world. fine, thanks"}
    (tmp_path / "in.jsonl").write_text(json.dumps({**item, "id": "q1"}) + "\n" + json.dumps({"question": "how"}) + "\n")
    words = ["predict", str(run), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main([*words, "--device=cpu", "--on-error=skip", "--language=de"]) == 1
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert row["id"] == "q1" and row["line"] == 1 and row["question"] == item["question"]
    assert row["prediction"] == pipeline("question-answering", run, device=-1, stride=12)(item)["answer"]
    assert main([*words, "--language=germanish"]) == 2
    assert "A language must be" in capsys.readouterr().err
    question = {"id": "q2", "question": item["question"]}  # without the answers that are wanted
    squad = {"data": [{"paragraphs": [{"context": item["context"], "qas": [question]}]}]}
    (tmp_path / "in.json").write_text(json.dumps(squad))
    words[3] = str(tmp_path / "in.json")
    assert main([*words, "--device=cpu"]) == 0
    (other,) = rows_of(tmp_path / "out.jsonl")
    assert other["id"] == "q2" and other["row"] == 0 and other["prediction"] == row["prediction"]


def test_choices(trained: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = trained("MultipleChoice", "recipe=xcopa")
    config = yaml.safe_load((run / "config.yaml").read_text())
    record = {role: "hello world" for role in config["dataset"]["columns"] if role != "label"}
    (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n" + json.dumps({"x": 1}) + "\n")
    words = ["predict", str(run), "--input", str(tmp_path / "in.jsonl"), "--device=cpu", "--on-error=skip"]
    assert main(words) == 1
    said = capsys.readouterr()
    row = json.loads(said.out)
    assert row["prediction"] in config["dataset"]["labels"] and len(row["scores"]) == 2
    assert "in.jsonl:2: expected a column " in said.err and "found 'x'. Name the columns so." in said.err


def test_translations(trained: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = trained("MaskedLM", "recipe=translation", "task.max_target_length=30")
    tokenizer = Tokenizer.from_path(run / "model")
    shape = configuration(vocab_size=len(tokenizer) + 7, max_position_embeddings=66, initializer_range=0.4)
    model = XLMRobertaXLEncoderDecoder(shape).eval()
    model.save_pretrained(run / "model")
    (tmp_path / "in.jsonl").write_text('{"foreign": "hello world"}\n{"foreign": " "}\n{"text": "are you fine"}\n')
    words = ["predict", str(run), "--input", str(tmp_path / "in.jsonl"), "--device=cpu", "--on-error=skip"]
    assert main(words) == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [(row["line"], row["source"]) for row in rows] == [(1, "hello world"), (3, "are you fine")]
    for row in rows:
        with torch.no_grad():
            ids = torch.tensor([tokenizer.encode(row["source"])])
            output = model(input_ids=ids, generate=True, max_new_tokens=29, num_tokens=len(tokenizer))
        written = output.generated_ids[0].tolist()
        written = written[: written.index(2)] if 2 in written else written
        assert row["prediction"] == tokenizer.decode(written, skip_special_tokens=True) != ""
    assert "in.jsonl:2: expected text, found none. Mend or remove the row." in said.err
    assert main([*words, "--dtype=float16"]) == 2
    assert "dtype must be bfloat16 or float32 for translation, got float16, in which" in capsys.readouterr().err


def test_what_cannot_be_predicted(trained: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = trained("MaskedLM", "recipe=mlm")
    (tmp_path / "in.tsv").write_text("text\nhello\n")
    assert main(["predict", str(run), "--input", str(tmp_path / "in.tsv"), "--device=-1"]) == 2
    assert "predict must have a run of sequence_classification, " in capsys.readouterr().err
    run = trained("SequenceClassification", "recipe=xnli")
    (tmp_path / "bad.tsv").write_bytes(b"\xff\n")
    assert main(["predict", str(run), "--input", str(tmp_path / "bad.tsv"), "--device=-1", "--on-error=skip"]) == 2
    assert "bad.tsv:1: expected UTF-8, got the byte 0xff" in capsys.readouterr().err
    for content, message in (
        ("text\ttext_pair\n", "names.tsv:1: expected rows below the names of the columns, found none. Give some"),
        ("text\ttext\na\tb\n", "names.tsv:1: expected names of columns that differ, found 'text' more than once. Re"),
    ):
        (tmp_path / "names.tsv").write_text(content)
        assert main(["predict", str(run), "--input", str(tmp_path / "names.tsv"), "--device=-1"]) == 2
        assert message in capsys.readouterr().err
    assert main(["predict", str(run), "--input", str(tmp_path / "in.xyz"), "--device=-1"]) == 2
    assert "--input must be a file ending in .tsv, .csv, .jsonl, " in capsys.readouterr().err
    assert main(["predict", str(run), "--input", str(tmp_path / "none.tsv"), "--device=-1"]) == 2
    assert "none.tsv: expected a file that can be read, got No such file" in capsys.readouterr().err


def test_a_run_predicts_as_it_was_evaluated(repository: Path, tmp_path: Path) -> None:
    words = ["recipe=demo", "data.limit=40", "train.max_steps=2", "evaluate.bootstrap=0", "evaluate.languages=[de]"]
    run = tmp_path / "run"
    assert main([*words, "train.precision=fp32", f"run.dir={run}"]) == 0
    evaluated = rows_of(run / "predictions/de.jsonl")
    rows = repository / "xlmrxl_train/data/sample/nli/test-de.tsv.gz"
    output = tmp_path / "out.jsonl"
    assert main(["predict", str(run), "--input", str(rows), "--output", str(output), "--device", "cpu"]) == 0
    predicted = [row["prediction"] for row in rows_of(output)]
    assert predicted[: len(evaluated)] == [row["prediction"] for row in evaluated]
    assert len(evaluated) == 40 < len(predicted)
