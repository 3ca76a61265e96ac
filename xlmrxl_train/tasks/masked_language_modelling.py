"""Masked language modelling: hide tokens of a text, or of a sentence and its translation, and predict them.

Source: 15 % of the tokens, of which 80 % become <mask>, 10 % a random token and 10 % stay: BERT (arXiv 1810.04805,
section 3.1), as RoBERTa and XLM-R train; masks are drawn anew in every epoch (arXiv 1907.11692, section 4.1). Whole
words: what is drawn for a word holds for all its tokens (google-research/bert, README.md of May 31st, 2019), as in
fairseq/data/mask_tokens_dataset.py (facebookresearch/fairseq @ 079540e97f1a), where also the kind is drawn per word.
A sentence and its translation in one sequence: XLM's translation language modelling (arXiv 1901.07291, section 3.3).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from xlmrxl_train.config import DatasetConfig, MaskedLanguageModellingConfig
from xlmrxl_train.data.examples import Batch, Feature
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.data.words import WordStarts
from xlmrxl_train.model import PackedSequences, XLMRobertaXLForMaskedLM
from xlmrxl_train.tasks.language_modelling import IGNORED, LanguageModelling

MASKED, RANDOM = 0.8, 0.1  # shares of the predicted tokens; the rest stay


class MaskedLanguageModelling(LanguageModelling):
    """Trains `XLMRobertaXLForMaskedLM`."""

    model_class: ClassVar[type] = XLMRobertaXLForMaskedLM

    def __init__(self, config: MaskedLanguageModellingConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.mask_probability = config.mask_probability
        self.whole_word = config.whole_word
        # Never predicted and never drawn at random; <unk> is predicted, and not drawn.
        self.special = np.array(
            [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id]
        )

    @cached_property
    def word_starts(self) -> WordStarts:
        """Where words begin; made when the first batch is, as all pieces are looked at."""
        return WordStarts(self.tokenizer)

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
        word_of = np.arange(len(tokens))
        if self.whole_word:
            word_of = np.cumsum(self.word_starts.of(tokens)) - 1
        num_words = int(word_of[-1]) + 1
        ordinary_words = np.bincount(word_of, ordinary, num_words) > 0
        chosen = ordinary_words & (random.random(num_words) < self.mask_probability)
        if not chosen.any() and ordinary.any():  # a short sentence predicts at least one word
            chosen[random.choice(np.flatnonzero(ordinary_words))] = True
        hidden, kind = chosen[word_of] & ordinary, random.random(num_words)[word_of]
        replaced = np.where(kind < MASKED, self.tokenizer.mask_token_id, tokens)
        noise = random.integers(self.tokenizer.unk_token_id + 1, len(self.tokenizer) - 1, len(tokens))
        replaced = np.where((kind >= MASKED) & (kind < MASKED + RANDOM), noise, replaced)
        return np.where(hidden, replaced, tokens), np.where(hidden, tokens, IGNORED)
