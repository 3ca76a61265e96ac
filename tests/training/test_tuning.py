"""Which parameters learn under each choice of tuning, and what is refused."""

from typing import Any

import pytest
import torch

from xlmrxl_train.checks import faults_of
from xlmrxl_train.cli import load_config
from xlmrxl_train.config import (
    BiasTuningConfig,
    HeadTuningConfig,
    LastLayersTuningConfig,
    LoraTuningConfig,
    TuningConfig,
)
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import (
    PreTrained,
    XLMRobertaXLConfig,
    XLMRobertaXLForMaskedLM,
    XLMRobertaXLForMultipleChoice,
    XLMRobertaXLForSequenceClassification,
)
from xlmrxl_train.training.tuning import tune

SHAPE: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
                         "intermediate_size": 32, "max_position_embeddings": 16}  # fmt: skip
HEAD = {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")}


def meta(model_class: type[PreTrained]) -> PreTrained:
    with torch.device("meta"):
        return model_class(XLMRobertaXLConfig(**SHAPE))


def learning(tuning: TuningConfig, model_class: type[PreTrained] = XLMRobertaXLForSequenceClassification) -> set[str]:
    model = meta(model_class)
    tune(model, model.source(None, 1), tuning)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names() -> list[str]:
    return [name for name, _ in meta(XLMRobertaXLForSequenceClassification).named_parameters()]


def test_full_is_all() -> None:
    assert learning(TuningConfig()) == set(names())


def test_head_is_the_head() -> None:
    assert learning(HeadTuningConfig()) == HEAD


def test_bias_is_every_bias_and_the_head() -> None:
    wanted = {name for name in names() if name.endswith("bias")} | HEAD
    assert learning(BiasTuningConfig()) == wanted and len(wanted) == 3 * 8 + 1 + 4


def test_last_layers_take_the_norm_after_them_along() -> None:
    starts = ("roberta.encoder.layer.1.", "roberta.encoder.layer.2.", "roberta.encoder.LayerNorm.", "classifier.")
    assert learning(LastLayersTuningConfig(layers=2)) == {name for name in names() if name.startswith(starts)}


def test_a_pooler_belongs_to_the_head() -> None:
    pooler = {f"roberta.pooler.dense.{kind}" for kind in ("weight", "bias")}
    wanted = pooler | {"classifier.weight", "classifier.bias"}
    assert learning(HeadTuningConfig(), XLMRobertaXLForMultipleChoice) == wanted


def test_a_vocabulary_stays_as_the_embedding_it_is() -> None:
    wanted = {f"lm_head.{part}.{kind}" for part in ("dense", "layer_norm") for kind in ("weight", "bias")}
    assert learning(HeadTuningConfig(), XLMRobertaXLForMaskedLM) == wanted


@pytest.mark.parametrize("targets", [["query", "output"], LoraTuningConfig().targets])
def test_adapters_stand_on_the_matrices_of_layers_that_were_named(targets: list[str]) -> None:
    places = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
              "attention_output": "attention.output.dense", "intermediate": "intermediate.dense",
              "output": "output.dense"}  # fmt: skip
    model = meta(XLMRobertaXLForSequenceClassification)
    source = model.source(None, 1)
    source.stored = dict.fromkeys(names(), "")  # as if a file had them all
    tune(model, source, LoraTuningConfig(targets=targets))
    found = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found == HEAD | {
        f"roberta.encoder.layer.{layer}.{places[target]}.lora_{part}.default.weight"
        for layer in range(3)
        for target in targets
        for part in "AB"
    }


def test_more_layers_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^tuning\.layers must be at most the model's 3 layers, got 4\.$"):
        learning(LastLayersTuningConfig(layers=4))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["recipe=demo", "tuning=lora"],
            "tuning=lora needs model.path, got null: adapters are for weights that were trained. "
            "Give model.path=<Hub id, folder or run folder>, or leave tuning out.",
        ),
        (
            ["recipe=xnli", "tuning=dora", "tuning.weights=nf4", "train.precision=fp32"],
            "tuning.weights=nf4 needs train.precision=bf16, got fp32: its products are in bf16. Set one of them.",
        ),
        (
            ["recipe=translation", "tuning=bias"],
            "tuning must be full where task=translation, which has matrices that begin as random numbers, got bias. "
            "Leave tuning out.",
        ),
        (
            ["recipe=tatoeba", "tuning=head"],
            "tuning must be full where task=retrieval, which trains nothing, got head. Leave tuning out.",
        ),
        (
            ["recipe=xnli", "tuning=lora", "model.embeddings=active"],
            "model.embeddings must be auto or frozen with tuning=lora, under which no word is trained, got active. "
            "Leave one of them out.",
        ),
        (
            ["recipe=xnli", "tuning=last_layers", "train.matmul=fp8"],
            "train.matmul must be bf16 with tuning=last_layers, got fp8. Leave one of them out.",
        ),
    ],
)
def test_what_does_not_suit_the_rest_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(words)
    assert str(caught.value) == message


def test_each_choice_suggests_a_rate_of_its_own() -> None:
    for tuning, rate in (("full", 5e-6), ("lora", 1e-4), ("last_layers", 5e-6), ("head", 1e-3)):
        config = load_config(["recipe=xnli", f"tuning={tuning}"])
        assert config.optimizer.lr == rate and not faults_of(config)
    assert load_config(["recipe=xnli", "tuning=lora", "optimizer.lr=3e-4"]).optimizer.lr == 3e-4


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlmrxl_train.training.adapters.find_spec", lambda name: None)
    wanted = r"^tuning=lora needs the package peft, found none\. Run pip install 'xlmrxl_train\[adapters\]'\.$"
    with pytest.raises(ConfigError, match=wanted):
        learning(LoraTuningConfig())
