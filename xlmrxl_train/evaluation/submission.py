"""Test predictions as XTREME's evaluate.py reads them, made from those on disk: <folder>/<task>/test-<language>.tsv.

A label per line; a tag per line with a blank line between sentences; JSON of id and answer; the row of the translation,
from 0, per line; two ids per mined pair. Lines stand in the order of the test set, which has to be XTREME's.

Source: google-research/xtreme, evaluate.py @ 091824888a60 (`read_label`, `read_tag`, `read_squad`, `bucc_f1`, and the
names of files), mock_test_data/predictions @ 522434d1aece, and, that rows count from 0,
third_party/run_retrieval.py @ 22b13c6e2051, which writes what faiss returns.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xlmrxl_train.config import DatasetConfig
from xlmrxl_train.data.languages import short_code
from xlmrxl_train.errors import ConfigError

Lines = Iterable[dict[str, Any]]


def xtreme_task(dataset: DatasetConfig) -> str:
    """Return XTREME's name of a data set, which is that of its folder.

    Raises:
        ConfigError: It is not one of XTREME's.
    """
    if dataset.name not in _TASKS:
        raise ConfigError(
            f"evaluate.submission=xtreme is for XTREME's data sets ({', '.join(sorted(_TASKS))}), got {dataset.name}. "
            "Set evaluate.submission=null."
        )
    return _TASKS[dataset.name]


def write_submission(predictions: Path, folder: Path, dataset: DatasetConfig, languages: Sequence[str]) -> None:
    """Write predictions once more, below `folder`.

    Args:
        predictions: Folder with <language>.jsonl, as the evaluator writes them.
        folder: Of the submission; a folder named after the task is made in it.
        dataset: What was predicted.
        languages: In which.

    Raises:
        ConfigError: XTREME does not have it.
    """
    task = xtreme_task(dataset)
    suffix, written = _FORMATS[task]
    (folder / task).mkdir(parents=True, exist_ok=True)
    for language in languages:
        target = folder / task / f"test-{short_code(language)}.{suffix}"
        temporary = target.with_name(f".{target.name}.partial")
        lines = (predictions / f"{language}.jsonl").open(encoding="utf-8")
        with lines, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(written(map(json.loads, lines), dataset))
        temporary.replace(target)


def _labels(lines: Lines, dataset: DatasetConfig) -> Iterator[str]:
    """Labels as the data set's files write them: XTREME's PAWS-X has 0 and 1."""
    written = {name: value for value, name in reversed(dataset.label_values.items())}
    for line in lines:
        yield f"{written.get(line['prediction'], line['prediction'])}\n"


def _tags(lines: Lines, dataset: DatasetConfig) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield from ["\n"] * (number > 0)
        yield from (f"{tag}\n" for tag in line["prediction"])


def _answers(lines: Lines, dataset: DatasetConfig) -> Iterator[str]:
    answers = {line["id"]: line["prediction"] for line in lines}
    yield json.dumps(answers, ensure_ascii=False, indent=1) + "\n"


def _translations(lines: Lines, dataset: DatasetConfig) -> Iterator[str]:
    """Rows found from foreign to English, which is XTREME's direction; the way back is left out."""
    for line in lines:
        yield f"{line['prediction'][0]}\n"


def _pairs(lines: Lines, dataset: DatasetConfig) -> Iterator[str]:
    """Pairs that were mined, by the ids of the files; the id of a prediction may name its side before them."""
    for line in lines:
        own = line["id"].rpartition("/")[2]
        yield from (f"{own}\t{partner}\n" for partner in line["prediction"])


# The name of a data set in its YAML -> XTREME's.
_TASKS = {
    "XNLI": "xnli",
    "PAWS-X": "pawsx",
    "UDPOS": "udpos",
    "PAN-X": "panx",
    "XQuAD": "xquad",
    "MLQA": "mlqa",
    "TyDiQA-GoldP": "tydiqa",
    "BUCC 2018": "bucc2018",
    "Tatoeba": "tatoeba",
}
_FORMATS: dict[str, tuple[str, Callable[[Lines, DatasetConfig], Iterator[str]]]] = {
    **dict.fromkeys(("xnli", "pawsx"), ("tsv", _labels)),
    **dict.fromkeys(("udpos", "panx"), ("tsv", _tags)),
    **dict.fromkeys(("xquad", "mlqa", "tydiqa"), ("json", _answers)),
    "tatoeba": ("tsv", _translations),
    "bucc2018": ("tsv", _pairs),
}
