"""Masked language modelling: hide tokens of a text, or of a sentence and its translation, and predict them.

Source: 15 % of the tokens, of which 80 % become <mask>, 10 % a random token and 10 % stay: BERT (arXiv 1810.04805,
section 3.1), as RoBERTa and XLM-R train; masks are drawn anew in every epoch (arXiv 1907.11692, section 4.1). A
sentence and its translation in one sequence: XLM's translation language modelling (arXiv 1901.07291, section 3.3).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from xlmrxl_train.config import DatasetConfig, MaskedLanguageModellingConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLForMaskedLM
from xlmrxl_train.tasks.task import Prediction, Task

IGNORED = -100  # the label of a token that is not predicted, as in torch's cross entropy
MASKED, RANDOM = 0.8, 0.1  # shares of the predicted tokens; the rest stay


class MaskedLanguageModelling(Task):
    """Trains `XLMRobertaXLForMaskedLM`; roles: text, text_pair (optional, its translation)."""

    model_class: ClassVar[type] = XLMRobertaXLForMaskedLM
    default_metrics: ClassVar[tuple[str, ...]] = ("perplexity",)
    labelled: ClassVar[bool] = False

    def __init__(self, config: MaskedLanguageModellingConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.mask_probability = config.mask_probability
        self.special = np.array([tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id])

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the head's size is the vocabulary's."""
        return {}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield the rows that have text."""
        roles = [role for role in ("text", "text_pair") if role in self.dataset.columns]
        for row in rows:
            values: dict[str, Any] = {role: row.values.get(role) for role in roles}
            for role, text in values.items():
                if not isinstance(text, str):
                    raise DataError(
                        f"{row.where}: column {self.dataset.columns[role]!r} must hold text, got {shown(text)}. "
                        f"Mend the row, or map another column with dataset.columns.{role}=<column>."
                    )
            if any(values.values()):
                yield Example(id=row.id, values=values, where=row.where, language=row.language)

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise a text, or a text and its translation as one sequence."""
        texts = [example.values["text"] for example in examples]
        pairs = [example.values["text_pair"] for example in examples] if "text_pair" in self.dataset.columns else None
        encoded = self.tokenizer.encode_batch(texts, pairs, max_length=self.max_length)
        return [[Feature(example=0, input_ids=input_ids)] for input_ids in encoded]

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack sequences and hide some of their tokens; what is hidden depends on draw, table and example alone."""
        masked, labels = [], []
        for index, feature in enumerate(features):
            tokens = np.asarray(feature.input_ids)
            target = np.full(len(tokens), IGNORED)
            if index < len(examples):  # not in a batch without targets
                tokens, target = self._mask(tokens, np.random.default_rng([draw, *examples[index]]))
            masked.append(tokens)
            labels.append(target)
        input_ids, position_ids = pack(masked, self.tokenizer.pad_token_id)
        targets = torch.from_numpy(np.concatenate(labels))
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": PackedSequences.from_lengths([len(tokens) for tokens in masked]),
                "labels": targets,
                "rows": (targets != IGNORED).nonzero().squeeze(1),  # so that the device need not search them
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=float((targets != IGNORED).sum()),
        )

    def _mask(self, tokens: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids to read and the ids to predict, each [L]."""
        ordinary = ~np.isin(tokens, self.special)
        chosen = ordinary & (random.random(len(tokens)) < self.mask_probability)
        if not chosen.any() and ordinary.any():  # a short sentence predicts at least one token
            chosen[random.choice(np.flatnonzero(ordinary))] = True
        kind = random.random(len(tokens))
        replaced = np.where(kind < MASKED, self.tokenizer.mask_token_id, tokens)
        noise = random.integers(len(self.special) + 1, len(self.tokenizer) - 1, len(tokens))
        replaced = np.where((kind >= MASKED) & (kind < MASKED + RANDOM), noise, replaced)
        return np.where(chosen, replaced, tokens), np.where(chosen, tokens, IGNORED)

    def no_target(self) -> dict[str, Any]:
        """Return nothing: `collate` hides no token of a feature without an example."""
        return {}

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return the summed loss of each example, with its number of predicted tokens as reference."""
        assert output.target_losses is not None
        labels = batch.inputs["labels"].cpu()
        lengths = torch.tensor(batch.inputs["sequences"].lengths)
        row_of_target = torch.repeat_interleave(torch.arange(len(lengths)), lengths)[labels != IGNORED]
        losses = torch.zeros(len(lengths), dtype=torch.float64)
        losses.index_add_(0, row_of_target, output.target_losses.double().cpu())
        counts = torch.bincount(row_of_target, minlength=len(lengths))
        return [
            Prediction(table=table, example=example, prediction=loss, reference=count)
            for (table, example), loss, count in zip(batch.examples, losses.tolist(), counts.tolist(), strict=True)
        ]

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Return the loss per predicted token, in nats, and the number of tokens."""
        tokens = prediction.reference
        return {"loss": prediction.prediction / tokens if tokens else None, "tokens": tokens}
