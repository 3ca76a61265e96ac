"""Causal language modelling: predict each token from those before it.

Every token but a sequence's first is predicted, its end </s> too, as transformers' XLMRobertaXLForCausalLM counts them.
A translation after its source, in one sequence, is predicted with it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from xlmrxl_train.data.examples import Batch, Feature
from xlmrxl_train.data.packing import pack
from xlmrxl_train.model import PackedSequences, XLMRobertaXLForCausalLM
from xlmrxl_train.tasks.language_modelling import IGNORED, LanguageModelling


class CausalLanguageModelling(LanguageModelling):
    """Trains `XLMRobertaXLForCausalLM`, in which no token sees later ones."""

    model_class: ClassVar[type] = XLMRobertaXLForCausalLM

    def model_options(self) -> dict[str, Any]:
        """Return what makes the encoder causal."""
        return {"is_decoder": True}

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack sequences; the labels are their tokens, which the model shifts."""
        input_ids, position_ids = pack([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        sequences = PackedSequences.from_lengths([len(feature.input_ids) for feature in features])
        labels = input_ids if examples else torch.full_like(input_ids, IGNORED)  # a batch without targets
        predicting = torch.full(labels.shape, bool(examples))
        predicting[sequences.offsets[1:].long() - 1] = False  # a sequence's last token predicts nothing
        rows = predicting.nonzero().squeeze(1)
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": sequences,
                "labels": labels,
                "rows": rows,
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=float(len(rows)),
        )
