"""Retrieval end to end on made-up sentences: pairs both ways, and mining with a threshold from the validation split."""

import json
from pathlib import Path
from typing import Any

import pytest

from xlmrxl_train import load_config, train
from xlmrxl_train.config import DatasetConfig, RetrievalConfig
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.retrieval import Retrieval

SENTENCES = [
    "The girl reads a book.", "A dog sleeps.", "Two men cook fish.", "She buys a red car.", "The boy eats 3 apples.",
    "Nobody came.", "It rains in the city.", "He drinks cold tea.", "My mother sings.", "The train is late.",
]  # fmt: skip


def run(folder: Path, words: list[str], conf: str) -> dict[str, Any]:
    """Run a recipe on the files in `folder` and return report.json."""
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / "mine.yaml").write_text(conf, encoding="utf-8")
    config = load_config(
        [
            "dataset=mine", "model=tiny", f"tokenizer.path={SAMPLE_TOKENIZER}", f"data.root={folder}",
            "data.source=files", f"run.dir={folder / 'run'}", "task.layer=0", "train.precision=fp32", *words,
        ],
        config_dir=str(folder / "conf"),
    )  # fmt: skip
    train(config)
    return json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))


PAIRS = """# made-up pairs
name: pairs
kind: retrieval
languages: [de]
columns: {text: xx, text_pair: en}
files:
  test:
    - parallel: {xx: "de.txt", en: "en.txt"}
"""


def test_each_sentence_finds_its_translation_in_both_directions(tmp_path: Path) -> None:
    # Sentence 8 has been translated like sentence 9, so forward it finds 8 or 9, and backward nothing finds 8.
    (tmp_path / "en.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    (tmp_path / "de.txt").write_text("\n".join([*SENTENCES[:8], SENTENCES[9], SENTENCES[9]]), encoding="utf-8")
    report = run(tmp_path, ["recipe=tatoeba"], PAIRS)
    assert report["languages"]["de"]["accuracy_forward"] == 0.9
    assert report["languages"]["de"]["accuracy_backward"] == 0.8
    assert report["setting"] == "no training here: the model as it came"
    assert report["notes"] == ["no training; sentence vectors: mean over tokens of layer 0; cosine"]
    lines = (tmp_path / "run" / "predictions" / "de.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[2])["prediction"] == [2, 2] and json.loads(lines[2])["reference"] == 2
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "mean over tokens of layer 0" in text and "Trained on" not in text
    assert not (tmp_path / "run" / "model").exists()


BUCC = """# made-up collections
name: collections
kind: retrieval
languages: [de]
columns: {text: text, side: side, gold: gold}
id_column: id
files:
  validation:
    - format: bucc
      parallel: {source: dev.de, target: dev.en, gold: dev.gold}
  test:
    - format: bucc
      parallel: {source: test.de, target: test.en, gold: test.gold}
"""


def collection(folder: Path, split: str, source: list[str], target: list[str], gold: list[tuple[int, int]]) -> None:
    for side, sentences in (("de", source), ("en", target)):
        lines = [f"{side}-{number}\t{sentence}" for number, sentence in enumerate(sentences)]
        (folder / f"{split}.{side}").write_text("\n".join(lines), encoding="utf-8")
    (folder / f"{split}.gold").write_text("\n".join(f"de-{i}\ten-{j}" for i, j in gold), encoding="utf-8")


def test_mining_takes_pairs_above_the_threshold_of_the_validation_split(tmp_path: Path) -> None:
    other = ["Zebras.", "7 8 9", "Blue green.", "Why not now?"]
    collection(tmp_path, "dev", [*SENTENCES[:5], *other[:2]], [*SENTENCES[:5], *other[2:]], [(i, i) for i in range(5)])
    # The same texts in another order, so the same margins; but the first one stands twice among the sources: it
    # cannot be said which of them was found, and that gold pair is lost.
    source = [*SENTENCES[:5], *other[:2], SENTENCES[0]]
    collection(tmp_path, "test", source, [*other[2:], *SENTENCES[:5]], [(i, i + 2) for i in range(5)])
    report = run(tmp_path, ["recipe=bucc"], BUCC)
    assert report["languages"]["de"]["mining_f1"] == pytest.approx(2 * 4 / (4 + 5))
    lines = (tmp_path / "run" / "predictions" / "de.jsonl").read_text(encoding="utf-8").splitlines()
    mined = {line["id"]: (line["prediction"], line["reference"]) for line in map(json.loads, lines)}
    assert mined["source/de-1"] == (["en-3"], ["en-3"]) and mined["source/de-0"] == ([], ["en-2"])
    assert mined["target/en-3"] == ([], [])
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    validation = next(line for line in metrics if line.get("split") == "validation" and line["event"] == "evaluate")
    assert validation["mining_f1"] == 1.0


def test_wrong_rows_are_named() -> None:
    def faults(columns: dict[str, str], values: dict[str, Any]) -> str:
        dataset = DatasetConfig(name="x", columns=columns)
        task = Retrieval(RetrievalConfig(), dataset, Tokenizer.from_path(SAMPLE_TOKENIZER))
        with pytest.raises(DataError) as caught:
            list(task.examples([Row(id="0", values=values, where="f.tsv:3")]))
        return str(caught.value)

    assert faults({"text": "a", "text_pair": "b"}, {"text": "x", "text_pair": None}) == (
        "f.tsv:3: column 'b' must hold text, got None. "
        "Mend the row, or map another column with dataset.columns.text_pair=<column>."
    )
    assert faults({"text": "a", "side": "s", "gold": "g"}, {"text": "x", "side": "left", "gold": ""}) == (
        "f.tsv:3: column 's' must be source or target, got 'left'. Mend the row."
    )


def test_tatoeba_on_real_sentences(shared_data: Path, tmp_path: Path) -> None:
    """The words of the embeddings alone find some of Afrikaans' English translations: names and numbers."""
    config = load_config(
        [
            "recipe=tatoeba", "model=tiny", f"data.root={shared_data}", "evaluate.languages=[afr]", "task.layer=0",
            f"tokenizer.path={shared_data / 'tokenizer' / 'xlmr' / 'tokenizer.json.gz'}", f"run.dir={tmp_path / 'run'}",
            "data.limit=200",
        ]
    )  # fmt: skip
    report = train(config)
    assert report is not None
    assert report.languages["afr"].n == 200
    assert 0.05 < report.languages["afr"].values["accuracy_forward"] < 0.9
