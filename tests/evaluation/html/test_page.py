"""The page as a file: nothing harmful, nothing fetched, small enough; tests/browser opens it in a real browser."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser.pages import HARM, write_runs
from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train import evaluate, load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.data.languages import _table
from xlmrxl_train.evaluation.comparison.comparing import compare
from xlmrxl_train.evaluation.comparison.published import published_sets
from xlmrxl_train.evaluation.comparison.reading import find_runs
from xlmrxl_train.evaluation.html import page as page_module
from xlmrxl_train.evaluation.html.markup import script_data, shown, tag_of
from xlmrxl_train.evaluation.html.page import to_html

Capture = pytest.CaptureFixture[str]


class Elements(HTMLParser):
    """Collects elements with their attributes, and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False  # of a script
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = write_runs(tmp_path_factory.mktemp("runs"), seeds=2)
    return to_html(compare(find_runs(map(str, runs)), paired=False))


def test_nothing_is_fetched_and_nothing_foreign_runs(text: str) -> None:
    elements = Elements(text)
    addresses = [value for _, attrs in elements.found for name, value in attrs.items() if name in ("src", "href")]
    assert addresses and all(value and value.startswith("#") for value in addresses)
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on")]
    (policy,) = [attrs["content"] for _, attrs in elements.found if attrs.get("http-equiv")]
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    script = base64.b64encode(hashlib.sha256(elements.scripts[-1].encode()).digest()).decode()
    assert f"'sha256-{script}'" in policy
    assert len([tag for tag, _ in elements.found if tag == "script"]) == 3  # figures, Plotly, ours
    assert len(text.encode()) < 6_000_000


def test_texts_of_the_data_are_shown_and_not_obeyed(text: str) -> None:
    assert html.escape(HARM[0], quote=False) in text.replace("&#39;", "'") and HARM[0] not in text
    assert not [tag for tag, _ in Elements(text).found if tag in ("img", "b")]
    assert 'turned <span class="control">U+202E</span>txet<span class="control">U+202C</span>' in text
    assert not set("\x00\x1b\u202e\ufffe\u2028") & set(text)
    assert "{{ 7 * 7 }}" in text and '<p class="text" dir="auto" lang="ar-Arab">' in text


def test_letters_that_cannot_be_seen_are_named() -> None:
    assert shown("a\u200bb\ud800") == 'a<span class="control">U+200B</span>b<span class="control">U+D800</span>'
    assert shown("می‌خواهم\n\u200f") == "می‌خواهم\n\u200f"  # a joiner and a mark that people write
    assert "<" not in script_data({"</script>": "<!--&"}) and json.loads(script_data(["</script>"])) == ["</script>"]
    assert [tag_of(code) for code in ("zho_Hans", "en", "ur", "de-en")] == ["zh-Hans", "en-Latn", "ur-Arab", "de-Latn"]


def test_the_figures_hold_the_numbers(text: str) -> None:
    drawn = json.loads(Elements(text).scripts[0])
    assert [figure["title"] for figure in drawn] == [
        "Languages by step",
        "Transfer by step",
        "Training loss",
        "Learning rate",
        "Gradient norm before clipping",
        "Real tokens per second",
        "Memory of the first process, GB",
        "Confusion",
    ]
    steps, transfer, loss, confusion = drawn[0], drawn[1], drawn[2], drawn[-1]
    assert steps["choices"][0]["x"] == ["100", "200", "300"] and len(steps["choices"][0]["z"]) == 15
    assert steps["choices"][0]["z"][0] == pytest.approx([0.6, 0.7, 0.8])
    assert [line["name"] for line in transfer["lines"]] == ["mean", "mean without training languages", "transfer gap"]
    assert [line["name"] for line in loss["lines"]] == ["seed 1", "seed 2"] and len(loss["lines"][0]["x"]) == 30
    assert [choice["name"] for choice in confusion["choices"]][:2] == ["all languages", "English (en)"]
    assert sum(map(sum, confusion["choices"][1]["z"])) == 30


def test_the_protocol_says_how_it_came_about(text: str) -> None:
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text.split("<h3>Protocol</h3>")[1].split("<script")[0]))
    said = " ".join(plain.split())
    assert "setting zero-shot from en" in said and "seeds 1, 2" in said and "tokenizer abab" in said
    assert "hardware 2 x NVIDIA H100 80GB HBM3, CPU with 2 cores, 8.0 GB of memory" in said
    assert (
        "time in steps 6.0 s each" in said and "energy estimated: at most 0.00467 kWh, 2 x 700 W of board power" in said
    )
    assert "step 120, guard: what spike <b>of</b> the loss" in said


def test_two_groups_are_tested_in_pairs_without_being_asked(tmp_path: Path, capsys: Capture) -> None:
    for name, lr, share in (("a", "1e-3", 0.9), ("b", "2e-3", 0.5)):
        write_run(tmp_path / name, {"de": right(share, 20)}, overrides=["recipe=demo", f"optimizer.lr={lr}"])
    output = tmp_path / "both.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    assert "Paired bootstrap: A minus B" in text and "optimizer.lr" in text
    assert [tag for tag, attrs in Elements(text).found if "hidden" not in str(attrs.get("class"))].count("figure") == 0


def test_tasks_of_xtreme_stand_below_their_table(tmp_path: Path) -> None:
    for name in ("xnli", "paws_x"):
        test_set = published_sets()[name]
        guesses = {code: right(0.8, test_set.n[code]) for code in test_set.languages}
        settings = {"dataset": test_set.datasets[0], "recipe": f"xtreme/{name}"}
        write_run(tmp_path / name, guesses, predictions=False, **settings)
    text = to_html(compare(find_runs([str(tmp_path)]), paired=False))
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == ["XTREME", "PAWS-X, test split: 1 run", "XNLI, test split: 1 run"]
    assert re.findall(r'<a href="(#part-\d)">', text) == ["#part-1", "#part-2"]
    assert "Beside published scores: accuracy" in text and "86.4 (-6.4)" in text  # XLM-R large on PAWS-X
    assert '<tfoot>\n<tr>\n<th scope="row"><bdi>classification</bdi></th>' in text


def test_112_languages_in_wide_letters_stay_small(tmp_path: Path) -> None:
    codes = sorted({entry.code for entry in _table().values()})[:112]
    run = write_run(tmp_path / "run", {code: right(0.5, 20) for code in codes})
    for code in codes:
        path = run / "predictions" / f"{code}.jsonl"
        lines = [json.loads(line) | {"texts": ["ไ" * 500] * 3} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = to_html(compare(find_runs([str(run)]), paired=False))
    assert len(text.encode()) < 6_000_000 and text.count('<details class="mistakes">') == 112


def test_a_run_writes_its_page_unless_told_not_to(tmp_path: Path, capsys: Capture) -> None:
    words = ["recipe=demo", "data.limit=6", "train.max_steps=1", "evaluate.bootstrap=0", "evaluate.languages=[en,ar]"]
    assert train(load_config([*words, f"run.dir={tmp_path / 'one'}"])) is not None
    text = (tmp_path / "one/report.html").read_text(encoding="utf-8")
    assert 'lang="ar-Arab"' in text and text.endswith("</html>\n")
    assert evaluate(tmp_path / "one").languages
    again = (tmp_path / "one/evaluation/sample_nli/report.html").read_text(encoding="utf-8")
    assert "<dt>hardware</dt>" in again and "Training loss" not in again
    assert train(load_config([*words, "evaluate.html=false", f"run.dir={tmp_path / 'two'}"])) is not None
    assert not (tmp_path / "two/report.html").exists()
    (tmp_path / "three/report.html").mkdir(parents=True)
    assert train(load_config([*words, f"run.dir={tmp_path / 'three'}"])) is not None
    said = capsys.readouterr().err
    assert said.count("report.html was not written (IsADirectoryError: ") == 1 and "all else of the run was" in said


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "metrics.jsonl",
            '{"event": "train", "step": 1}\n{"event"',
            "metrics.jsonl:2: a line must be an event with its",
        ),
        ("metrics.jsonl", '{"event": "train"}', "metrics.jsonl:1: a line must be an event with its step, got"),
        ("environment.json", "[1]", "environment.json cannot be read: it must hold keys and values. Restore it, or"),
        (
            "predictions/de.jsonl",
            "nothing\n",
            "de.jsonl:1: a line must be a prediction as a run writes it, got 'nothing'",
        ),
    ],
)
def test_damaged_files_are_named(file: str, text: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path / "run", {"de": right(0.5, 10)})
    (run / file).write_text(text, encoding="utf-8")
    assert main(["report", str(run), "--output", str(tmp_path / "r.html")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_without_plotly_it_is_named(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", {"de": right(0.5, 10)})
    page_module._plotly.cache_clear()
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    assert main(["report", str(run), "--output", str(tmp_path / "r.html")]) == 2
    assert "A page of HTML needs the package plotly. Install it: pip install plotly." in capsys.readouterr().err
