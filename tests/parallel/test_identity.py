"""The same run, however it is cut: gradients over micro-batches and ranks, scores over ranks."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import DIVIDED

from tests.torchrun import forked
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLEncoderDecoder
from xlmrxl_train.session import SAMPLE_TOKENIZER

WORKER = Path(__file__).parent / "worker.py"

# 50 examples in batches of 40: the last step, whose gradients are compared, has 10 of unequal lengths.
SMALL = [
    "recipe=demo",
    "model.path=null",
    "train.precision=fp32",
    "train.batch_size=40",
    "data.limit=50",
    "model.hidden_dropout_prob=0",
    "model.attention_probs_dropout_prob=0",
]
MASKED = ["recipe=demo_pretrain", "train.languages=[de,zh]", "data.limit=25"]
# Two training sets in two languages, of 25 and 10 examples, of which an epoch of 35 has 20 and 15 by temperature 3.
SAMPLED = [
    "train.sampling_temperature=3", "train.languages=[en,fr]", "data.limit=25", "mixture.a=sample_nli",
    "mixture.a.languages=[en]", "mixture.b=sample_nli", "mixture.b.languages=[fr]",
    "mixture.b.sample.train.0.part=[0.0,0.0125]",
]  # fmt: skip
CAUSAL = [
    "recipe=clm", "model=tiny", "dataset=sample_parallel", "task.join=none", "train.languages=[de,zh]", "data.limit=25",
]  # fmt: skip
TAGGED = [
    "recipe=panx",
    "model=tiny",
    f"tokenizer.path={SAMPLE_TOKENIZER}",
    "task.max_length=16",
    "train.languages=[en]",
]
ASKED = [
    "recipe=tydiqa",
    "model=tiny",
    f"tokenizer.path={SAMPLE_TOKENIZER}",
    "task.max_length=40",
    "task.stride=8",
    "train.languages=[en]",
]
TRANSLATED = [
    "recipe=translation",
    "model=tiny",
    "dataset=sample_parallel",
    "dataset.sample.test=[{path: parallel/validation.tsv.gz}]",
    "train.languages=[de,zh]",
    "data.limit=25",
    "task.max_target_length=24",
]
CUT = ["train.tokens_per_micro_batch=48", "task.max_length=48"]
JOBS = {
    "classification": ["gradients"],
    "classification, cut": ["gradients", *CUT],
    "masked": ["gradients", *MASKED],
    "masked, cut": ["gradients", *MASKED, *CUT],
    "sampled": ["gradients", *SAMPLED],
    "sampled, cut": ["gradients", *SAMPLED, *CUT],
    "causal": ["gradients", *CAUSAL],
    "causal, cut": ["gradients", *CAUSAL, *CUT],
    "tags": ["gradients", *TAGGED],
    "tags, cut": ["gradients", *TAGGED, "train.tokens_per_micro_batch=48"],
    "scores of tags": ["scores", *TAGGED, "evaluate.tokens_per_batch=300", "evaluate.bootstrap=20"],
    "questions": ["gradients", *ASKED],
    "questions, cut": ["gradients", *ASKED, "train.tokens_per_micro_batch=128"],
    "scores of questions": ["scores", *ASKED, "evaluate.tokens_per_batch=600", "evaluate.bootstrap=20"],
    "translation": ["gradients", *TRANSLATED],
    "translation, cut": ["gradients", *TRANSLATED, *CUT],
    "scores of translations": ["scores", *TRANSLATED, "evaluate.tokens_per_batch=40", "evaluate.bootstrap=20"],
    "one example": ["gradients", "data.limit=41"],  # fewer examples in the last step than ranks
    "scores": ["scores", "evaluate.tokens_per_batch=600", "evaluate.bootstrap=50", "seed=3"],
    "few scores": ["scores", "evaluate.languages=[en]", "data.limit=5", "evaluate.bootstrap=0"],  # one batch in all
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identity")


def write_tagged_sentences(folder: Path) -> None:
    """Write sentences in PAN-X's files, most of them longer than a sequence."""
    draw = random.Random(0)
    for name in ("train/train-en.tsv", "test/test-en.conllu", "dev/dev-zh.tsv"):
        index = "0\t" if "test" in name else ""
        sentences = [
            "".join(
                f"{index}{draw.choice(['the', 'girl', 'แม่', 'x1y2'])}\t{draw.choice(['O', 'B-PER'])}\n"
                for _ in range(n)
            )
            for n in range(1, 51)
        ]
        (folder / "ner/panx" / name).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / "ner/panx" / f"{name}.gz", "wt", encoding="utf-8") as stream:
            stream.write("\n".join(sentences))


def write_questions(folder: Path) -> None:
    """Write questions in TyDiQA's files, most of them with a context of several windows."""
    draw = random.Random(0)
    for name in ("train/english_tydiqa_train", "dev/english_tydiqa_dev", "dev/korean_tydiqa_dev"):
        paragraphs = []
        for n in range(5, 55):
            words = [draw.choice(["the", "girl", "man", "a", "book"]) for _ in range(n)]
            first = draw.randrange(n)
            answer = {"text": words[first], "answer_start": len(" ".join([*words[:first], ""]))}
            question = {"id": str(n), "question": "the man reads", "answers": [answer]}
            paragraphs.append({"context": " ".join(words), "qas": [question]})
        (folder / "qa/tydiqa_goldp" / name).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / "qa/tydiqa_goldp" / f"{name}.json.gz", "wt", encoding="utf-8") as stream:
            json.dump({"data": [{"paragraphs": paragraphs}]}, stream)


def write_translator(folder: Path) -> None:
    """Write a random model whose translations end soon or late, so that ranks need different numbers of steps."""
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(
        vocab_size=1025, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        initializer_range=0.3,
    )  # fmt: skip
    model = XLMRobertaXLEncoderDecoder(config)
    with torch.no_grad():
        model.decoder.lm_head.bias[2] += 4.0
    model.save_pretrained(folder / "translator")
    Tokenizer.from_path(SAMPLE_TOKENIZER).save(folder / "translator")


def work(folder: Path, ranks: int, jobs: dict[str, list[str]]) -> Any:
    out = folder / "out.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLMRXL_CACHE", str(folder / "cache"))
        done = forked(WORKER, str(out), json.dumps(jobs), ranks=ranks, seconds=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[int, Any]:
    """What the jobs give on 1, 2 and 3 ranks."""
    write_tagged_sentences(folder)
    write_questions(folder)
    write_translator(folder)
    jobs = {name: [what, *SMALL, *words, *root(folder, words)] for name, (what, *words) in JOBS.items()}
    return {ranks: work(folder, ranks, jobs) for ranks in (1, 2, 3)}


def root(folder: Path, words: list[str]) -> list[str]:
    recipe = words[0] if words else ""
    if recipe == "recipe=translation":
        return [f"model.path={folder / 'translator'}", "evaluate.languages=[de,zh]"]
    languages = {"recipe=panx": "[en,zh]", "recipe=tydiqa": "[en,ko]"}.get(recipe)
    return [f"data.root={folder}", f"evaluate.languages={languages}"] if languages else []


def assert_same_gradients(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert norm > 0
    assert set(expected) == set(got)
    for name, gradient in expected.items():
        assert (gradient - got[name]).norm() <= 1e-5 * norm, name


@pytest.mark.parametrize("task", ["classification", "masked", "sampled", "causal", "tags", "questions", "translation"])
def test_gradients_do_not_depend_on_micro_batches_and_ranks(results: dict[int, Any], task: str) -> None:
    whole = results[1][task]
    assert whole["micro_batches"] == 1
    assert results[1][f"{task}, cut"]["micro_batches"] >= 4
    assert results[2][f"{task}, cut"]["micro_batches"] >= 2
    for ranks in (1, 2, 3):
        for name in (task, f"{task}, cut"):
            assert_same_gradients(whole["gradients"], results[ranks][name]["gradients"])


def test_a_rank_without_work_does_not_hang_and_counts_nothing(results: dict[int, Any]) -> None:
    for ranks in (2, 3):
        assert_same_gradients(results[1]["one example"]["gradients"], results[ranks]["one example"]["gradients"])


def test_scores_are_the_same_to_the_last_digit(results: dict[int, Any]) -> None:
    assert len(results[1]["scores"]) == 15
    assert results[1]["scores"] == results[2]["scores"] == results[3]["scores"]


def test_tags_of_sentences_in_several_sequences_score_the_same(results: dict[int, Any]) -> None:
    (values, number, intervals), thai = results[1]["scores of tags"].values()
    assert number == thai[1] == 50 and values["entity_f1"] > 0 and intervals
    assert results[1]["scores of tags"] == results[2]["scores of tags"] == results[3]["scores of tags"]


def test_answers_over_several_windows_score_the_same(results: dict[int, Any]) -> None:
    (values, number, intervals), korean = results[1]["scores of questions"].values()
    assert number == korean[1] == 50 and values["squad_f1"] > 0 and intervals
    assert results[1]["scores of questions"] == results[2]["scores of questions"] == results[3]["scores of questions"]


def test_translations_of_different_lengths_score_the_same(results: dict[int, Any]) -> None:
    (values, number, intervals), chinese = results[1]["scores of translations"].values()
    assert number == chinese[1] == 20 and 0 < values["chrf"] != chinese[0]["chrf"] and intervals
    assert results[1]["scores of translations"] == results[2]["scores of translations"]
    assert results[1]["scores of translations"] == results[3]["scores of translations"]


def test_scores_with_fewer_batches_than_ranks(results: dict[int, Any]) -> None:
    assert results[1]["few scores"]["en"][1] == 5
    assert results[1]["few scores"] == results[2]["few scores"] == results[3]["few scores"]


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3", pytest.param("zero2", marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_the_strategy(results: dict[int, Any], folder: Path, strategy: str) -> None:
    words = ["strategy.device=cpu", f"strategy={strategy}", *(DIVIDED if strategy == "zero3" else [])]
    jobs = {
        name: [what, *SMALL, *more, *root(folder, more), *words]
        for name, (what, *more) in JOBS.items()
        if what == "scores"
    }
    got = work(folder, 2, jobs)
    assert got == {name: results[1][name] for name in jobs}
