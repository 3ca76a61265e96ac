"""Which parameters move at which rate, and from when on."""

from pathlib import Path

import pytest
import torch
from jobs import assert_same, events, run

from xlmrxl_train.config import OptimizerConfig
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLEncoderDecoder, XLMRobertaXLForMultipleChoice
from xlmrxl_train.training.checkpoint import Checkpointer
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


def test_a_run_goes_on_in_the_middle_of_thawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """2 steps per epoch; one layer thaws after 7 updates, the other after 9, the embeddings after 11."""
    words = ["optimizer.unfreeze_after=3.5", "optimizer.unfreeze_every=1", "optimizer.head_lr=2e-3"]
    assert run(tmp_path / "whole", *words) is not None
    assert "the encoder is frozen for the first 7\n" in capfd.readouterr().err
    logged = [event["rates"] for event in events(tmp_path / "whole") if event["event"] == "train"]
    assert set(logged[0]) == {"head", "layer.1", "layer.0", "embeddings"}
    begins = {part: next(n for n, rates in enumerate(logged) if rates[part]) for part in logged[0]}
    assert begins == {"head": 0, "layer.1": 7, "layer.0": 9, "embeddings": 11}
    lr = next(event["lr"] for event in events(tmp_path / "whole") if event.get("step") == 8)
    assert logged[7] == {"head": 2 * lr, "layer.1": lr, "layer.0": 0.0, "embeddings": 0.0}

    save = Checkpointer.save

    def break_off(self, strategy, state):
        if state.step > 9:
            raise OSError("the test")
        return save(self, strategy, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", break_off)
        with pytest.raises(OSError, match="the test"):
            run(tmp_path / "run", *words)
    assert run(tmp_path / "run", *words) is not None
    assert_same(tmp_path / "run", tmp_path / "whole")
