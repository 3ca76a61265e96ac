"""fill-mask against transformers' pipeline on the same weights, and what only ours does."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.inference.folders import UNUSED_ROWS, saved
from xlmrxl_train import Tokenizer, pipeline
from xlmrxl_train.errors import CheckpointError, ConfigError, DataError
from xlmrxl_train.inference.base import Pipeline
from xlmrxl_train.model import QuantizationConfig, XLMRobertaXLForMaskedLM, XLMRobertaXLModel

TEXTS = [
    "hello <mask> how are you",
    "<mask>, thanks!",
    "hello world how are you fine thanks hello world. are you <mask>?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model."""
    return saved(tmp_path_factory.mktemp("mlm"), "MaskedLM")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Pipeline:
    """Our pipeline."""
    return pipeline("fill-mask", folder, device=-1)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """Transformers' pipeline."""
    return transformers.pipeline("fill-mask", model=str(folder), device=-1)


def compare(mine: Any, reference: Any, num_tokens: int) -> None:
    """Assert that proposals are equal; of transformers' those of unused rows are left out."""
    if isinstance(reference[0], list):
        assert len(mine) == len(reference)
        for one, other in zip(mine, reference, strict=True):
            compare(one, other, num_tokens)
        return
    known = [entry for entry in reference if entry["token"] < num_tokens]
    for one, other in zip(mine, known, strict=False):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert {**one, "score": 0} == {**other, "score": 0}


@pytest.mark.parametrize("text", [*TEXTS, TEXTS, [TEXTS[0]], ["<mask> world <mask>", TEXTS[1]], "hello <mask> <mask>."])
def test_it_answers_as_transformers_does(text: Any, ours: Pipeline, theirs: Any) -> None:
    num_tokens = len(ours.tokenizer)
    reference = theirs(text, top_k=5 + UNUSED_ROWS)
    compare(ours(text), reference, num_tokens)
    compare(ours(text, top_k=2), theirs(text, top_k=2 + UNUSED_ROWS), num_tokens)


def test_real_words(shared_data: Path, tmp_path: Path) -> None:
    """The vocabulary of XLM-R with its 878 unused rows, and a model of random weights."""
    tokenizer = Tokenizer.from_path(shared_data / "tokenizer/xlmr/tokenizer.json.gz")
    folder = saved(tmp_path, "MaskedLM", tokenizer=tokenizer, vocab_size=250_880, hidden_size=16)
    theirs = transformers.pipeline("fill-mask", model=str(folder), device=-1)
    texts = ["Bonjour, je suis un modèle <mask>.", "植物は<mask>と呼ばれる過程で酸素を<mask>。"]
    compare(pipeline("fill-mask", folder, device=-1)(texts), theirs(texts, top_k=20), 250_002)


def test_unused_rows_are_not_proposed_but_have_their_share(folder: Path, ours: Pipeline) -> None:
    every = ours(TEXTS[0], top_k=10_000)
    assert len(every) == len(ours.tokenizer) == ours.model.config.vocab_size - UNUSED_ROWS
    assert 0.5 < sum(entry["score"] for entry in every) < 1


def test_targets(ours: Pipeline, theirs: Any, caplog: pytest.LogCaptureFixture) -> None:
    for targets in ("▁world", ["▁world", "▁fine", "a"], ["hello", "zzz"]):
        mine, reference = (pipe(TEXTS, targets=targets) for pipe in (ours, theirs))
        compare(mine, reference, len(ours.tokenizer))
        assert [len(row) for row in mine] == [len(row) for row in reference]
    assert "target 'hello' is no token; its first one, '▁hello', stands for it" in caplog.text
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match="targets must name at least one token"):
        ours(TEXTS[0], targets=["  "])
    assert "target '  ' has no token and is left out" in caplog.text


def test_names_of_the_arguments(folder: Path) -> None:
    pipe = pipeline(task="fill-mask", model=str(folder), torch_dtype=torch.bfloat16, device="cpu", top_k=1)
    assert pipe.model.dtype == torch.bfloat16 and not any(item.requires_grad for item in pipe.model.parameters())
    answers = pipe(TEXTS)
    assert [len(answer) for answer in answers] == [1, 1, 1]
    exact = pipeline("fill-mask", folder, dtype="float32", device="cpu")(TEXTS)
    for answer, other in zip(answers, exact, strict=True):
        assert answer[0]["score"] == pytest.approx(other[0]["score"], rel=0.1)
    built = pipeline("fill-mask", pipe.model, tokenizer=pipe.tokenizer)
    assert built(TEXTS, top_k=1) == answers


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("hello", {}, r"input 1: fill-mask must have <mask> in the text, found none\. Put <mask> where"),
        (["<mask>", ""], {}, r"input 2: fill-mask must have a text, got ''\. Mend or remove the input\."),
        (["<mask>", "<mask> \ud800"], {}, r"input 2: fill-mask must have a text, got '<mask> \\ud800'\. Mend or"),
        (["<mask>", 5], {}, "input 2: fill-mask must have a text, got 5"),
        (5, {}, r"fill-mask must have a text, a list or an iterable, got 5\. Give one\."),
        ("hello " * 70 + "<mask>", {}, "input 1: fill-mask must have at most 64 tokens, special ones included, got 73"),
        ("hello " * 70 + "<mask>", {"truncation": True}, "found none; its <mask> was cut off. Put"),
    ],
)
def test_a_wrong_input_is_named(text: Any, options: dict[str, Any], message: str, ours: Pipeline) -> None:
    with pytest.raises(DataError, match=message):
        ours(text, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 1}, r"top is not an option of fill-mask\. Did you mean top_k\?"),
        ({"top_k": 0}, r"top_k must be an integer of at least 1, got 0\. Set it anew or leave it out\."),
        ({"targets": [5]}, r"targets must be a list of texts, got \[5\]\. Write \[\.\.\.\] around them, and q"),
        ({"truncation": 1}, r"truncation must be true or false, got 1\. Set one of them\."),
        ({"window": 0, "tokens_per_batch": None}, "tokens_per_batch must be an integer of at least 1, got None"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str, ours: Pipeline, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ours(TEXTS[0], **options)
    with pytest.raises(ConfigError, match=message):
        pipeline("fill-mask", folder, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "fill-masks"}, r"task must be fill-mask \| .*, got fill-masks\. Did you mean fill-mask\?"),
        ({"dtype": "float8"}, r"dtype must be float32 \| bfloat16 \| float16 or auto, got float8\. Use bfloat16\."),
        ({"device": 99}, r"device must be a number of a GPU, cuda:<number> or cpu, got 99; here is .*Use device=-1"),
        ({"device": "moon"}, "device must be a number of a GPU, cuda:<number> or cpu, got moon"),
        ({"model": "./nowhere"}, r"model: folder not found: \./nowhere"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(**{"task": "fill-mask", "model": folder, **arguments})


def test_spread_and_rounded_models(folder: Path, ours: Pipeline, tmp_path: Path) -> None:
    spread = pipeline("fill-mask", folder, device_map={"": "cpu"})
    assert [answer["token"] for answer in spread(TEXTS[0])] == [answer["token"] for answer in ours(TEXTS[0])]
    with pytest.raises(ConfigError, match=r"device must be left out with device_map, which says it, got 0\. Give one"):
        pipeline("fill-mask", folder, device=0, device_map="auto")
    config = QuantizationConfig(weights="int8")
    XLMRobertaXLForMaskedLM.from_pretrained(folder, quantization_config=config).save_pretrained(tmp_path)
    ours.tokenizer.save(tmp_path)
    for place in ({"device": -1}, {"device_map": "auto"}):
        rounded = pipeline("fill-mask", tmp_path, **place)
        assert rounded(TEXTS[0])[0]["score"] == pytest.approx(ours(TEXTS[0])[0]["score"], rel=0.1)


def test_a_model_must_suit_the_task(
    folder: Path, ours: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    headless = saved(tmp_path / "headless", "")
    with pytest.raises(ConfigError, match=r"model must have a trained head for XLMRobertaXLForMaskedLM, got .*lm_head"):
        pipeline("fill-mask", headless)
    assert not caplog.records  # nothing of weights that would be new
    with pytest.raises(ConfigError, match=r"tokenizer must be given with a model that is built already, got None"):
        pipeline("fill-mask", ours.model)
    with pytest.raises(ConfigError, match=r"dtype, device and revision must be left out with a model that is built"):
        pipeline("fill-mask", ours.model, tokenizer=ours.tokenizer, device=0)
    bare = XLMRobertaXLModel.from_pretrained(headless)
    with pytest.raises(
        ConfigError, match=r"model must be a XLMRobertaXLForMaskedLM for fill-mask, got a XLMRobertaXLMo"
    ):
        pipeline("fill-mask", bare, tokenizer=ours.tokenizer)
    small = saved(tmp_path / "small", "MaskedLM", vocab_size=20)
    with pytest.raises(ConfigError, match=r"tokenizer has \d+ tokens, more than the model's 20 rows\. Use the"):
        pipeline("fill-mask", small)
    (small / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"model must hold tokenizer\.json, .* Put it there, or name a tokenizer\."):
        pipeline("fill-mask", small, device=-1)


def test_numbers_that_leave_float16_are_no_answer(tmp_path: Path) -> None:
    folder = saved(tmp_path, "MaskedLM")
    model = XLMRobertaXLForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_parameter("roberta.encoder.layer.1.output.dense.weight").mul_(1e6)
    model.save_pretrained(folder)
    assert pipeline("fill-mask", folder, dtype="bfloat16", device=-1)(TEXTS[0])
    with pytest.raises(ConfigError, match=r"got float16, in which outputs of fill-mask are not finite\. Use dtype=tor"):
        pipeline("fill-mask", folder, dtype=torch.float16, device=-1)(TEXTS[0])
    pipe = pipeline("fill-mask", folder, dtype="float32", device=-1)
    with torch.no_grad():
        next(pipe.model.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"model must give finite numbers, got others in float32 for fill-mask"):
        pipe(TEXTS[0])
