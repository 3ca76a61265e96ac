"""Rates that differ by layer, and layers that thaw: as a loop written by hand does it, under every engine."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import DIVIDED, WORDS, assert_same, launch, tensors

from tests.parallel.worker import trainer_of
from xlmrxl_train import load_config
from xlmrxl_train.session import Session
from xlmrxl_train.training.optimizer import decayed_names
from xlmrxl_train.training.trainer import Trainer

LR, CLIP, STEPS = 1e-2, 0.05, 7  # clipping always acts
SINGLE = [*WORDS, "strategy=single", f"train.max_grad_norm={CLIP}", f"optimizer.lr={LR}"]
# 150 examples in batches of 40: 4 steps per epoch. The encoder thaws after 2 updates.
FROZEN = ["optimizer.unfreeze_after=0.5"]
# The last layer moves from the third step on, the first from the fourth, the embeddings from the fifth.
GRADUAL = [
    *FROZEN, "optimizer.unfreeze_every=0.25", "optimizer.layer_decay=0.5", f"optimizer.head_lr={2 * LR}",
    f"optimizer.lr={LR}", f"train.max_grad_norm={CLIP}", "train.tokens_per_micro_batch=512",
]  # fmt: skip
PLACES = {
    "ddp": (2, ["strategy=ddp"]),
    "fsdp2": (2, ["strategy=fsdp2"]),
    "zero1": (2, ["strategy=zero1"]),
    "zero2": (2, ["strategy=zero2"]),
    "zero3": (2, ["strategy=zero3", *DIVIDED]),
    "zero3_offload": (2, ["strategy=zero3_offload", *DIVIDED, "strategy.pin_memory=false"]),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "paces-cache"))


def trainer(*words: str) -> Trainer:
    config = load_config([*SINGLE, *words])
    return trainer_of(Session.open(config, training=True), config)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def by_hand(made: Trainer, thaws: int) -> dict[str, torch.Tensor]:
    """Train with torch alone: the encoder needs no gradient at first, and gets an optimizer of its own when it does."""
    model = made.strategy.model.train()
    config, decayed = made.config, decayed_names(model)
    encoder = {name: p for name, p in model.named_parameters() if name.startswith("roberta.")}
    head = {name: p for name, p in model.named_parameters() if name not in encoder}
    optimizers = []

    def begin(parameters: dict[str, torch.nn.Parameter]) -> None:
        groups = [
            {"params": [p for name, p in parameters.items() if (name in decayed) == decays], "weight_decay": decay}
            for decays, decay in ((True, config.optimizer.weight_decay), (False, 0.0))
        ]
        beta1, beta2 = config.optimizer.betas
        optimizers.append(torch.optim.AdamW(groups, LR, (beta1, beta2), config.optimizer.eps, fused=True))

    begin(head)
    for step in range(STEPS):
        if step == thaws:
            begin(encoder)
        for parameter in encoder.values():
            parameter.requires_grad_(step >= thaws)
        [batch] = made.batches.of_step(step)
        (model(**batch.inputs).loss_sum * torch.tensor(1 / batch.num_targets)).backward()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        assert norm > CLIP
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return weights(model)


def test_a_frozen_encoder_is_one_that_is_not_trained_yet() -> None:
    ours = trainer(*FROZEN)
    reference = by_hand(trainer(), thaws=2)
    before = weights(ours.strategy.model)
    for step in range(STEPS):
        result = ours._step(step, ours.batches.of_step(step), LR).result
        assert result.rates == {"encoder": LR if step >= 2 else 0.0, "head": LR}
        if step == 1:
            encoder = {name: value for name, value in before.items() if name.startswith("roberta.")}
            assert_equal(encoder, {name: weights(ours.strategy.model)[name] for name in encoder})
            state = ours.strategy.state_dict()
            assert not any(state[name].any() for name in state if name.startswith("optimizer.roberta."))
    assert_equal(reference, weights(ours.strategy.model))


def test_equal_paces_are_none() -> None:
    trained = []
    for words in ([], ["optimizer.layer_decay=1", f"optimizer.head_lr={LR}", "optimizer.unfreeze_after=0"]):
        made = trainer(*words)
        assert not [made._step(step, made.batches.of_step(step), LR).result.rates for step in range(3)][-1]
        trained.append(weights(made.strategy.model))
    assert_equal(*trained)


def test_a_skipped_step_is_no_update() -> None:
    """Neither before the encoder thaws, which is a step later then, nor for the corrections of its moments."""
    trained = []
    for skipped in ((), (1, 4)):
        made = trainer(*FROZEN)
        strategy, number = made.strategy, 0
        for step in range(STEPS - 2 + len(skipped)):
            if step in skipped:
                strategy.accumulate(made.batches.of_step(number)[0].inputs, torch.tensor(torch.nan), last=True)
                assert strategy.step(LR).skipped
                state = strategy.state_dict()
                strategy = resumed(state, made, number) if step == 4 else strategy
                continue
            made.strategy = strategy
            made._step(number, made.batches.of_step(number), LR)
            number += 1
        trained.append(weights(strategy.model))
    assert_equal(*trained)


def resumed(state: dict[str, torch.Tensor], made: Trainer, updates: int) -> Any:
    anew = trainer(*FROZEN).strategy
    anew.load_state_dict(deepcopy(state), updates)
    return anew


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paces")
    launch(1, folder / "out", {"whole": job(SINGLE)}, folder / "cache")
    return folder / "out"


def job(place: list[str], **more: object) -> dict[str, Any]:
    return {"words": [*WORDS, *place, *GRADUAL], "optimizer": "adamw", "steps": STEPS, "lr": LR, **more}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", PLACES)
def test_every_engine_moves_each_layer_as_one_process_does(strategy: str, single: Path, tmp_path: Path) -> None:
    ranks, place = PLACES[strategy]
    jobs = {"whole": job(place)}
    for steps in (1, 3, 5):  # all frozen; the last layer moves; all move
        jobs[f"saved {steps}"] = job(place, steps=steps)
        loaded = [str(tmp_path / "out" / f"saved {steps}"), steps]
        jobs[f"resumed {steps}"] = job(place, steps=STEPS - steps, load=loaded)
    launch(ranks, tmp_path / "out", jobs, tmp_path / "cache")
    whole = tensors(tmp_path / "out" / "whole")
    assert_same(tensors(single / "whole"), whole, 1e-5)
    first = tensors(tmp_path / "out" / "saved 1")
    assert not any(first[name].any() for name in first if name.startswith("optimizer.roberta."))
    assert all(first[name].any() for name in first if name.startswith("optimizer.classifier."))
    for steps in (1, 3, 5):
        assert_equal(whole, tensors(tmp_path / "out" / f"resumed {steps}"))
