"""What a forward call returns."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xlmrxl_train.model.cache import KeyValueCache


@dataclass(kw_only=True)
class ModelOutput:
    """Fields that a call did not compute are None.

    `outputs.logits`, `outputs["logits"]` and `outputs[0]` (the first field that is not None) work as on the Hub.
    Registered as a pytree, because sharding engines look for tensors in what a forward call returns.
    """

    loss: Tensor | None = None
    """Scalar float32: `loss_sum / num_targets`, the Hub's mean."""
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    """[T, D], or [batch, length, D] of a padded call."""
    pooler_output: Tensor | None = None
    past_key_values: KeyValueCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    """Embedding output, then each layer's output; the last one after the final layer norm, as on the Hub."""
    attentions: tuple[Tensor, ...] | None = None
    """Per layer [batch, heads, length, length], float32, after dropout; packed calls pad to the longest sequence."""
    cross_attentions: tuple[Tensor, ...] | None = None
    loss_sum: Tensor | None = None
    """Scalar float32: the loss summed over targets. Divide by the count over all ranks and micro-batches."""
    num_targets: Tensor | None = None
    """Scalar float32: number of targets, or their total weight."""
    target_losses: Tensor | None = None
    """[M] float32, detached: the loss of each target of a packed language model, in the order of the rows."""

    generated_ids: Tensor | None = None
    """[B, longest] int64: what was generated, </s> included; the padding token behind it."""

    def keys(self) -> list[str]:
        """Name the fields that are not None."""
        return [entry.name for entry in dataclasses.fields(self) if getattr(self, entry.name) is not None]

    def to_tuple(self) -> tuple[object, ...]:
        """Return the fields that are not None."""
        return tuple(getattr(self, key) for key in self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: int | slice | str) -> object:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]


torch.export.register_dataclass(ModelOutput, serialized_type_name="xlmrxl_train.model.ModelOutput")
