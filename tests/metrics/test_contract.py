"""What every metric keeps to: gold scores best, rows stand alone in any order, `evaluate` says the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train import metrics

TAGS = [["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC", "I-LOC"], ["O", "B-ORG"]]
POS = [["DET", "NOUN", "VERB"], ["SCONJ", "SCONJ", "X"], ["INTJ", "PUNCT"]]
SETS = [[1, 0, 1], [0, 1, 1], [1, 1, 0]]
TEXTS = ["Nile", "北京 NBA", "la casa"]
ANSWERS = [
    {"texts": ["the Nile", "river"], "language": "en"},
    {"texts": ["北京NBA"], "language": "zh"},
    {"texts": ["Casa"], "language": "es"},
]
SENTENCES = ["The Nile is a long river.", "尼罗河是一条长河。", "La casa è in via Roma 3, a destra."]
# Gold predictions, references, and predictions of which some are wrong.
SAMPLES: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "accuracy": ([0, 1, 2], [0, 1, 2], [1, 1, 2]),
    "accuracy_forward": ([[0, 0], [1, 1]], [0, 1], [[0, 0], [0, 1]]),
    "accuracy_backward": ([[0, 0], [1, 1]], [0, 1], [[0, 0], [1, 0]]),
    "macro_f1": ([0, 1, 2], [0, 1, 2], [1, 1, 2]),
    "micro_f1": (SETS, SETS, SETS[1:] + SETS[:1]),
    "multilabel_macro_f1": (SETS, SETS, SETS[1:] + SETS[:1]),
    "pearson": ([0.5, 1.5, 4.0], [0.5, 1.5, 4.0], [1.5, 4.0, 0.5]),
    "spearman": ([0.5, 1.5, 4.0], [0.5, 1.5, 4.0], [1.5, 4.0, 0.5]),
    "entity_f1": (TAGS, TAGS, [tags[1:] + tags[:1] for tags in TAGS]),
    "entity_f1_strict": (TAGS, TAGS, [tags[1:] + tags[:1] for tags in TAGS]),
    "pos_f1": (POS, POS, [tags[1:] + tags[:1] for tags in POS]),
    "tag_accuracy": (POS, POS, [tags[1:] + tags[:1] for tags in POS]),
    "squad_f1": (["Nile", "北京NBA", "casa"], ANSWERS, TEXTS),
    "squad_exact_match": (["Nile", "北京NBA", "casa"], ANSWERS, TEXTS),
    "mlqa_f1": (TEXTS, ANSWERS, TEXTS[1:] + TEXTS[:1]),
    "mlqa_exact_match": (TEXTS, ANSWERS, TEXTS[1:] + TEXTS[:1]),
    "xquad_fair_f1": (TEXTS, ANSWERS, TEXTS[1:] + TEXTS[:1]),
    "xquad_fair_exact_match": (TEXTS, ANSWERS, TEXTS[1:] + TEXTS[:1]),
    "mining_f1": ([["a"], [], ["b", "c"]], [["a"], [], ["b", "c"]], [[], ["a"], ["b", "c"]]),
    "loss": ([1.0, 3.0], [1, 3], [2.0, 3.0]),  # 1 nat per token; gold predictions would score 0
    "perplexity": ([0.0, 0.0], [1, 3], [2.0, 0.0]),
    "bleu": (SENTENCES, SENTENCES, SENTENCES[1:] + SENTENCES[:1]),
    "chrf": (SENTENCES, SENTENCES, SENTENCES[1:] + SENTENCES[:1]),
}


def score(name: str, predictions: list[Any], references: list[Any]) -> float:
    metric = metrics.load(name)
    return metric.fold(metric.statistics(predictions, references))


def test_every_metric_has_a_sample_and_a_module() -> None:
    assert set(SAMPLES) == set(metrics.NAMES) and len(set(metrics.NAMES)) == len(metrics.NAMES)
    modules = {path.stem for path in Path(metrics.path("accuracy")).parent.glob("*.py")} - {"__init__"}
    assert modules == set(metrics.NAMES)


@pytest.mark.parametrize("name", metrics.NAMES)
def test_gold_scores_one_and_others_less(name: str) -> None:
    gold, references, shifted = SAMPLES[name]
    assert score(name, gold, references) == pytest.approx(1.0, abs=1e-12)
    if metrics.load(name).HIGHER_IS_BETTER:
        assert -1 <= score(name, shifted, references) < 0.95
    else:
        assert score(name, shifted, references) > 1.05


INTEGERS = st.integers(0, 4)
NUMBERS = st.floats(-1e6, 1e6)
SETS_OF_THREE = st.lists(st.integers(0, 1), min_size=3, max_size=3)
WORDS = st.text(alphabet="aنال b中，ก.", max_size=6)
GOLD = st.builds(
    lambda texts, language: {"texts": texts, "language": language},
    st.lists(WORDS, min_size=1, max_size=3),
    st.sampled_from(["en", "es", "de", "ar", "hi", "vi", "zh"]),
)
TEXT = st.lists(st.sampled_from(["the", "a", "Nil,", "北京", "ก."]), max_size=8).map(" ".join)
IDS = st.lists(st.integers(0, 3), max_size=2)


def sentences(tags: str) -> st.SearchStrategy[tuple[list[str], list[str]]]:
    pairs = st.lists(st.tuples(st.sampled_from(tags.split()), st.sampled_from(tags.split())), min_size=1, max_size=6)
    return pairs.map(lambda pairs: ([pair[0] for pair in pairs], [pair[1] for pair in pairs]))


EXAMPLES: dict[str, st.SearchStrategy[tuple[Any, Any]]] = {
    "accuracy": st.tuples(INTEGERS, INTEGERS),
    **dict.fromkeys(["accuracy_forward", "accuracy_backward"], st.tuples(st.tuples(INTEGERS, INTEGERS), INTEGERS)),
    "macro_f1": st.tuples(INTEGERS, INTEGERS),
    "micro_f1": st.tuples(SETS_OF_THREE, SETS_OF_THREE),
    "multilabel_macro_f1": st.tuples(SETS_OF_THREE, SETS_OF_THREE),
    "pearson": st.tuples(NUMBERS, NUMBERS),
    "spearman": st.tuples(NUMBERS, NUMBERS),
    "entity_f1": sentences("O B-A I-A B-B I-B E-A S-A"),
    "entity_f1_strict": sentences("O B-A I-A B-B I-B"),
    "pos_f1": sentences("NOUN VERB SCONJ INTJ X O"),
    "tag_accuracy": sentences("NOUN VERB SCONJ INTJ X O"),
    **dict.fromkeys([name for name in metrics.NAMES if name.endswith("exact_match")], st.tuples(WORDS, GOLD)),
    **dict.fromkeys(["squad_f1", "mlqa_f1", "xquad_fair_f1"], st.tuples(WORDS, GOLD)),
    "mining_f1": st.tuples(IDS, IDS),
    "loss": st.tuples(st.floats(0, 100), st.integers(1, 9)),
    "perplexity": st.tuples(st.floats(0, 100), st.integers(1, 9)),
    **dict.fromkeys(["bleu", "chrf"], st.tuples(TEXT, TEXT)),
}


@pytest.mark.parametrize("name", metrics.NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_stand_alone_and_their_order_does_not_matter(name: str, data: st.DataObject) -> None:
    metric = metrics.load(name)
    examples = data.draw(st.lists(EXAMPLES[name], min_size=2, max_size=8))
    predictions, references = [example[0] for example in examples], [example[1] for example in examples]
    rows = metric.statistics(predictions, references)
    assert rows.dtype == np.float64 and rows.ndim == 2 and len(rows) == len(examples)
    cut = data.draw(st.integers(1, len(examples) - 1))
    parts = [metric.statistics(predictions[part], references[part]) for part in (slice(cut), slice(cut, None))]
    np.testing.assert_array_equal(np.concatenate(parts), rows)

    folded = metric.fold(rows)
    shuffled = rows[data.draw(st.permutations(range(len(rows))))]
    np.testing.assert_allclose(metric.fold(shuffled), folded, rtol=1e-9, atol=1e-9, equal_nan=True)
    if name in ("loss", "perplexity"):
        assert folded >= (name == "perplexity")
    elif name in ("pearson", "spearman"):
        assert np.isnan(folded) or -1 <= folded <= 1
    else:
        assert 0 <= folded <= 1


def test_every_metric_loads_by_path_in_evaluate_without_a_network(tmp_path: Path, repository: Path) -> None:
    plain = {
        "squad_f1": [["the Nile", "river"], ["北京NBA"], ["Casa"]],
        "squad_exact_match": [["the Nile", "river"], ["北京NBA"], ["Casa"]],
        "mining_f1": SAMPLES["mining_f1"][1],
    }
    cases = [
        (name, shifted, form, score(name, shifted, form))
        for name, (_, references, shifted) in SAMPLES.items()
        for form in [references, *([plain[name]] if name in plain else [])]
    ]
    program = """
import evaluate, json, sys
from xlmrxl_train import metrics
for name, predictions, references, expected in json.load(sys.stdin):
    found = evaluate.load(metrics.path(name)).compute(predictions=predictions, references=references)
    assert list(found) == [name] and abs(found[name] - expected) < 1e-12, (name, found, expected)
    print(name)
"""
    environment = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(cases), text=True, stdout=subprocess.PIPE, env=environment, cwd=repository, check=True,
        timeout=120,
    )  # fmt: skip
    assert set(done.stdout.split()) == set(metrics.NAMES)
