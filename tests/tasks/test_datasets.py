"""The contract of every YAML of conf/dataset/, kept with a few rows of its schema: rows/<data set>.jsonl.

Each line of such a file is one row: {"language": <code>, <column>: <value>, ...}, with the columns that
`dataset.columns` names, as the data set's files write their values. They are invented, in several scripts; some
language has rows whose answers differ, so that a wrong answer can be made of another row's. A new data set needs such a
file, and a new kind of task perhaps an entry in `GOLD` and in `WRONG`.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from xlmrxl_train import load_config, metrics
from xlmrxl_train.config import DatasetConfig, FilesConfig, FileSet
from xlmrxl_train.data.corpus import Corpus, Part, open_corpus
from xlmrxl_train.data.sources import FileSource
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.model import XLMRobertaXLConfig
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks import TASKS, Prediction, Task, make_task

CONF = Path(__file__).parents[2] / "conf" / "dataset"
DATASETS = sorted(path.stem for path in CONF.glob("*.yaml"))
ROWS = Path(__file__).parent / "rows"
STILL_TO_COME: tuple[str, ...] = ()  # data sets whose rows are not written yet
WITHOUT_GOLD = {"loss", "perplexity"}  # metrics that no answer makes 1, or whose gold is a loss of 0

# Kind -> the prediction that a perfect model would make; where there is no entry, it is the reference.
GOLD: dict[str, Callable[[Prediction], Any]] = {
    "question_answering": lambda item: item.reference["texts"][-1],
    "retrieval": lambda item: _both_ways(item.reference),
}


def _both_ways(reference: Any) -> Any:
    """Return the position that each direction should find; of mined sentences the list of partners."""
    return reference if isinstance(reference, list) else [reference, reference]


def _next_answer(golds: list[Any], position: int) -> Any:
    return golds[(position + 1) % len(golds)]


def _rotated(golds: list[Any], position: int) -> Any:
    return golds[position][1:] + golds[position][:1]


# Kind -> a wrong prediction; where there is no entry, it is the gold of the next row.
WRONG: dict[str, Callable[[list[Any], int], Any]] = {"token_classification": _rotated}


@dataclass(kw_only=True)
class Case:
    """A data set with its rows, tokenised, and what a tiny model says of them."""

    dataset: DatasetConfig
    task: Task
    corpus: Corpus
    predictions: list[Prediction]


def languages_of(name: str) -> list[str]:
    lines = (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(json.loads(line)["language"] for line in lines))


def kind_of(name: str) -> str:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return values.get("kind") or kind_of(values["defaults"][0])


def opened(name: str, cache: Path) -> tuple[Task, Corpus]:
    kind = kind_of(name)
    languages = "[all]" if TASKS[kind].trains else "[]"
    words = ["recipe=demo", f"dataset={name}", f"task={kind}", f"train.languages={languages}", "data.source=auto"]
    words += ["task.max_length=384"]  # the windows of questions are so long
    config = load_config(words)
    dataset = replace(
        config.dataset,
        files=FilesConfig(test=[FileSet(path=f"{name}.jsonl")]),
        language_column="language",
    )
    tokenizer = Tokenizer.from_path(SAMPLE_TOKENIZER)
    task, source = make_task(config.task, dataset, tokenizer), FileSource(dataset, dataset.files, ROWS, "files")
    assert set(languages_of(name)) <= set(dataset.languages)
    parts = [Part(split="test", language=code, source=source, encoder=task) for code in languages_of(name)]
    return task, open_corpus("test", parts, tokenizer.fingerprint, rows=Part.rows, limit=None, cache=cache)


@pytest.fixture(scope="module", params=[name for name in DATASETS if name not in STILL_TO_COME])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Rows -> examples -> features on disk -> one batch -> a tiny model -> predictions."""
    task, corpus = opened(request.param, tmp_path_factory.mktemp("cache"))
    features, places = corpus.features(range(len(corpus)))
    batch = task.collate(features, places, draw=0)
    assert batch.num_tokens == sum(len(feature.input_ids) for feature in features)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = task.model_class(XLMRobertaXLConfig(vocab_size=len(task.tokenizer), **shape, **task.model_options())).eval()
    with torch.no_grad():
        output = model(**batch.inputs)
        if task.trains:
            assert output.num_targets.item() == pytest.approx(batch.num_targets) and batch.num_targets > 0
            assert torch.isfinite(output.loss_sum) and output.loss_sum > 0
            assert torch.isfinite(model(**task.empty_batch().inputs).loss_sum)
        output = model(**task.prediction_inputs(batch.inputs, bool))
    predictions = task.predict(output, batch, features)
    if task.decides_together:
        predictions = [
            decided
            for table, language in enumerate(corpus.languages)
            for decided in task.decide([item for item in predictions if item.table == table], "test", language)
        ]
    return Case(dataset=task.dataset, task=task, corpus=corpus, predictions=predictions)


def test_every_data_set_has_rows() -> None:
    have = {path.stem for path in ROWS.glob("*.jsonl")}
    assert have | set(STILL_TO_COME) == set(DATASETS)
    assert not have & set(STILL_TO_COME)


def test_every_example_has_one_prediction_that_a_file_can_hold(case: Case) -> None:
    wanted = sorted(case.corpus.locate(number) for number in range(len(case.corpus)))
    assert sorted((item.table, item.example) for item in case.predictions) == wanted
    assert len({item.table for item in case.predictions}) >= min(2, len(case.dataset.languages))
    for item in case.predictions:
        assert json.loads(json.dumps(case.task.describe(item)))


def test_gold_predictions_score_1_and_wrong_ones_do_not(case: Case) -> None:
    kind = case.dataset.kind
    gold_of, wrong_of = GOLD.get(kind, lambda item: item.reference), WRONG.get(kind, _next_answer)
    for name in [name for name in case.task.metrics if name not in WITHOUT_GOLD]:
        metric = metrics.load(name)
        wrong_scores = []
        for table in range(len(case.corpus.tables)):
            items = [item for item in case.predictions if item.table == table]
            references = [item.reference for item in items]
            golds = [gold_of(item) for item in items]
            assert metric.fold(metric.statistics(golds, references)) == pytest.approx(1.0), name
            wrongs = [wrong_of(golds, position) for position in range(len(golds))]
            wrong_scores.append(metric.fold(metric.statistics(wrongs, references)))
        assert min(wrong_scores) < 1.0 and not any(map(math.isnan, wrong_scores)), name
