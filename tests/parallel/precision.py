"""Runs under torchrun: notes in which dtype one training step in bf16 computes, reduces and keeps what.

python precision.py OUT <override> ...
"""

import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.parallel.worker import trainer_of
from xlmrxl_train import load_config
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.model.layers import LayerNorm, Linear
from xlmrxl_train.session import Session

KINDS = {
    "softmax": ("_softmax.",), "products": (".mm.", "addmm."), "layer norm": ("native_layer_norm.",),
    "reduction": ("allreduce_", "reduce_scatter", "_reduce_scatter_base_"), "loss": ("nll_loss_forward",),
}  # fmt: skip
SMALLEST = 64  # elements of a reduction that counts as one of gradients, not of the loop's few numbers


class Notes(TorchDispatchMode):
    """The dtypes of what some operations take."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = defaultdict(set)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = f".{function}"
        tensors = [item for item in torch.utils._pytree.tree_leaves(arguments) if isinstance(item, torch.Tensor)]
        for kind, parts in KINDS.items():
            if tensors and any(part in name for part in parts):
                if kind != "reduction":
                    self.seen[kind].add(str(tensors[0].dtype))
                elif max(tensor.numel() for tensor in tensors) >= SMALLEST:
                    self.seen[kind] |= {str(tensor.dtype) for tensor in tensors}
        return function(*arguments, **(options or {}))


def main() -> None:
    out, words = Path(sys.argv[1]), sys.argv[2:]
    config = load_config(words)
    session = Session.open(config)
    trainer = trainer_of(session, config)
    strategy, notes = trainer.strategy, Notes()

    def note(kind):
        def hook(module, arguments, output):
            notes.seen[f"{kind} input"].add(str(arguments[0].dtype))
            notes.seen[f"{kind} output"].add(str(output.dtype))

        return hook

    for module in strategy.model.modules():
        if isinstance(module, LayerNorm | Linear):
            module.register_forward_hook(note(type(module).__name__))
        if isinstance(module, XLMRobertaXLLayer):
            module.register_forward_hook(note("residual stream"))
    with notes:
        trainer._step(0, trainer.batches.of_step(0), 1e-3)
    for name, tensor in strategy.state_dict().items():
        notes.seen["moments" if name.startswith("optimizer.") else "master weights"].add(str(tensor.dtype))
    if session.world.is_first:
        out.write_text(json.dumps({kind: sorted(dtypes) for kind, dtypes in notes.seen.items()}))
    session.world.barrier()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
