"""Which parameters move at which rate, and from when on."""

import pytest
import torch

from xlmrxl_train.config import OptimizerConfig
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLEncoderDecoder, XLMRobertaXLForMultipleChoice
from xlmrxl_train.training.optimizer import OptimizerPlan

EPOCH = 10  # steps
SHAPE = XLMRobertaXLConfig(
    vocab_size=16, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=12, bos_token_id=0, eos_token_id=2,
)  # fmt: skip


def groups(kind: type = XLMRobertaXLForMultipleChoice, **settings: object) -> tuple[torch.nn.Module, list[dict]]:
    model = kind(SHAPE)
    return model, OptimizerPlan(OptimizerConfig(lr=1e-4, **settings), model, EPOCH).groups(model)  # type: ignore[arg-type]


def values(model: torch.nn.Module, found: list[dict], key: str) -> dict[str, float]:
    """By name of the parameter; each is in one group."""
    of = {id(parameter): group[key] for group in found for parameter in group["params"]}
    assert sum(len(group["params"]) for group in found) == len(of) == len(list(model.parameters()))
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_rates_fall_from_the_head_to_the_embeddings() -> None:
    model, found = groups(layer_decay=0.5, head_lr=3e-4)
    scales = values(model, found, "scale")
    assert scales["classifier.weight"] == scales["roberta.pooler.dense.bias"] == pytest.approx(3.0)
    by_part = {group["part"]: group["scale"] for group in found}
    assert by_part == {
        "layer.2": 0.5, "layer.1": 0.25, "layer.0": 0.125, "embeddings": 0.0625, "head": pytest.approx(3.0),
    }  # fmt: skip
    assert scales["roberta.encoder.layer.2.attention.self.key.weight"] == 0.5
    assert scales["roberta.encoder.LayerNorm.weight"] == 0.5
    assert scales["roberta.encoder.layer.0.LayerNorm.bias"] == 0.125
    assert scales["roberta.embeddings.position_embeddings.weight"] == 0.0625


def test_layers_thaw_from_the_top() -> None:
    model, found = groups(unfreeze_after=0.5, unfreeze_every=1.0)
    begins = values(model, found, "begins")
    assert begins["classifier.weight"] == 0
    assert begins["roberta.encoder.LayerNorm.bias"] == begins["roberta.encoder.layer.2.output.dense.weight"] == 5
    assert begins["roberta.encoder.layer.1.output.dense.weight"] == 15
    assert begins["roberta.encoder.layer.0.output.dense.weight"] == 25
    assert begins["roberta.embeddings.word_embeddings.weight"] == 35


def test_an_encoder_thaws_at_once() -> None:
    model, found = groups(unfreeze_after=0.3)
    assert {group["part"]: group["begins"] for group in found} == {"encoder": 3, "head": 0}
    assert values(model, found, "begins")["roberta.embeddings.word_embeddings.weight"] == 3


def test_two_groups_where_nothing_differs() -> None:
    model, found = groups(head_lr=1e-4)
    assert [(group["weight_decay"], group["scale"], group["begins"]) for group in found] == [
        (0.1, 1.0, 0),
        (0.0, 1.0, 0),
    ]
    assert values(model, found, "weight_decay")["roberta.embeddings.word_embeddings.weight"] == 0.0


def test_both_stacks_of_a_translator_are_alike() -> None:
    model, found = groups(XLMRobertaXLEncoderDecoder, layer_decay=0.5)
    scales = values(model, found, "scale")
    for stack in ("encoder", "decoder.roberta"):
        assert scales[f"{stack}.encoder.layer.1.output.dense.weight"] == 0.25
        assert scales[f"{stack}.embeddings.word_embeddings.weight"] == 0.0625
    assert scales["decoder.lm_head.dense.weight"] == 1.0
