"""Runs under torchrun or alone: takes real steps and compares what they hold with what was planned.

python measuring.py OUT '{"<name>": ["<override>", ...], ...}'
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tests.parallel.worker import leave_with, trainer_of
from xlmrxl_train import load_config
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.plan.footprint import Setting, footprint
from xlmrxl_train.plan.states import Shapes, is_divided, states_of
from xlmrxl_train.session import Session, build_model
from xlmrxl_train.training.vocabulary import freeze_embeddings, frozen_dtypes


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def places_of(tensors: Any) -> dict[int, int]:
    """Return the storages of tensors and of their gradients, with their sizes."""
    found: dict[int, int] = {}
    for tensor in tensors:
        for each in (tensor, tensor.grad if tensor.is_leaf else None):
            if each is not None and each.device.type == "cpu" and each.layout == torch.strided:
                storage = local(each.detach()).untyped_storage()
                found[storage._cdata] = storage.nbytes()
    return found


def all_places() -> dict[int, int]:
    """Return every storage that a tensor of Python's is on."""
    gc.collect()
    return places_of([item for item in gc.get_objects() if issubclass(type(item), Tensor)])


class SavedTensors:
    """Counts what autograd saves, each storage once, without the parameters that a module has at that time."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.places: dict[int, int] = {}

    def __enter__(self) -> "SavedTensors":
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Tensor:
        parameters = {local(item).untyped_storage()._cdata for item in self.model.parameters()}
        storage = local(tensor).untyped_storage()
        if storage._cdata not in parameters:
            self.places[storage._cdata] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.places.values())


def measure(words: list[str]) -> dict[str, float]:
    """Take two steps, the second one watched, and plan for the same micro-batch."""
    config = load_config(words)
    session = Session.open(config, training=True)
    outline, source = build_model(config, session.task, session.tokenizer)
    freeze_embeddings(config, session.task, session.corpus("train", session.train_languages), outline, source)
    kept = frozen_dtypes(config, outline, source)
    before = all_places()
    trainer = trainer_of(session, config)
    strategy, seen = trainer.strategy, {}
    trainer._step(0, trainer.batches.of_step(0), 1e-3)
    step, accumulate = strategy.step, strategy.accumulate
    saved: list[int] = []

    def watched_step(lr: float) -> Any:
        now = all_places()
        seen["states"] = sum(size for place, size in now.items() if before.get(place) != size)
        return step(lr)

    def watched(inputs: dict[str, Any], scale: Tensor, *, last: bool) -> Tensor:
        with SavedTensors(strategy.model) as tensors:
            loss = accumulate(inputs, scale, last=last)
        saved.append(tensors.bytes)
        return loss

    strategy.step, strategy.accumulate = watched_step, watched
    batches = trainer.batches.of_step(1)
    trainer._step(1, batches, 1e-3)
    fullest = max(range(len(batches)), key=lambda index: saved[index])
    setting = Setting(
        precision=config.train.precision, recompute=config.train.recompute, divided=is_divided(config)
    )  # fmt: skip
    states = states_of(config, Shapes.of(outline, XLMRobertaXLLayer, kept), session.world.size, len(batches))
    return {
        "micro_batches": len(batches),
        "saved": saved[fullest],
        "kept": footprint(outline, batches[fullest].inputs, setting).kept,
        "states": seen["states"],
        "lasting": states.lasting + states.host,
    }


def main() -> None:
    results = {name: measure(words) for name, words in json.loads(sys.argv[2]).items()}
    leave_with(results, Path(sys.argv[1]) / "results.json")


if __name__ == "__main__":
    main()
