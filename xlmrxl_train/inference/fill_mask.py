"""Fill-mask: which tokens may stand in place of <mask>.

A score is the softmax over all rows of the vocabulary, as in transformers' pipeline, so that it is the same on the same
weights; rows beyond the tokenizer's tokens (XLM-R XL has 878, never trained) have their share in it but are never
proposed. The head sees the masked positions alone.

Suffixes: M masked tokens of a batch, V vocabulary, K proposals.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.inference.base import Options, Pipeline, at_least, texts
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.model import PreTrained, XLMRobertaXLForMaskedLM

logger = logging.getLogger(__name__)

_COST_OF_A_MASK = 16  # tokens: keeps the logits of a batch below 600 MB with XLM-R's vocabulary


@dataclass(kw_only=True, frozen=True)
class FillMaskOptions(Options):
    """Options of fill-mask."""

    top_k: int = 5
    """Proposals per mask."""
    targets: str | Sequence[str] | None = None
    """The only tokens to score; None: all. A word that is no token stands for its first one."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        faults = super().faults() + at_least("top_k", self.top_k, 1)
        return (
            faults if self.targets is None or isinstance(self.targets, str) else faults + texts("targets", self.targets)
        )


class FillMask(Pipeline):
    """Returns for each mask a list of score, token, token_str and sequence; for several masks a list of such lists."""

    task: ClassVar[str] = "fill-mask"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLForMaskedLM
    options_class: ClassVar[type[Options]] = FillMaskOptions
    causal: ClassVar[bool | None] = False

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Answer as `Pipeline` does; a list of one text is answered as the text, as the Hub has it."""
        results = super().__call__(inputs, **options)
        return results[0] if isinstance(inputs, list) and len(inputs) == 1 else results

    def work(self, item: Input, content: Any, encoded: Any, options: Options) -> Work:
        """Return the sequence of a text with at least one mask."""
        kept = self.fitting(item, encoded, options)
        count = kept.count(self.tokenizer.mask_token_id)
        if not count:
            cut = "; its <mask> was cut off" if self.tokenizer.mask_token in content else ""
            raise DataError(
                f"{item.where}: fill-mask must have {self.tokenizer.mask_token} in the text, found none{cut}. "
                f"Put {self.tokenizer.mask_token} where a token is to be guessed."
            )
        return Work(size=len(kept) + _COST_OF_A_MASK * count, content=kept)

    def compute(self, works: Sequence[Work], options: FillMaskOptions) -> Sequence[Any]:
        """Run the model, and the head on the masks."""
        sequences: list[list[int]] = [work.content for work in works]
        ids_T = torch.tensor([id_ for sequence in sequences for id_ in sequence])
        rows_M = (ids_T == self.tokenizer.mask_token_id).nonzero().squeeze(1)
        logits_MV = self.run(sequences, rows=rows_M.to(self.model.device)).logits
        assert logits_MV is not None
        logits_MV = self.finite(logits_MV).float()
        total_M = logits_MV.logsumexp(-1, keepdim=True)
        candidates = self._targets(options.targets)
        if candidates is None:
            known_MV = logits_MV[:, : len(self.tokenizer)]
            best_MK, token_MK = known_MV.topk(min(options.top_k, known_MV.shape[1]))
        else:
            chosen = torch.tensor(candidates, device=logits_MV.device)
            best_MK, place_MK = logits_MV[:, chosen].topk(min(options.top_k, len(chosen)))
            token_MK = chosen[place_MK]
        return self._read(sequences, (best_MK - total_M).exp().tolist(), token_MK.tolist())

    def _read(self, sequences: list[list[int]], scores: list[list[float]], tokens: list[list[int]]) -> list[Any]:
        """Return the proposals of each text; all sequences of a kind are decoded at once."""
        mask, pad = self.tokenizer.mask_token_id, self.tokenizer.pad_token_id
        results: list[Any] = []
        filled: dict[bool, list[list[int]]] = {True: [], False: []}
        waiting: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        row = 0
        for sequence in sequences:
            places = [index for index, id_ in enumerate(sequence) if id_ == mask]
            single = len(places) == 1  # else special tokens stay, so that the other masks are seen
            proposals = []
            for place in places:
                of_mask = []
                for score, token in zip(scores[row], tokens[row], strict=True):
                    answer = [*sequence[:place], token, *sequence[place + 1 :]]
                    filled[single].append([id_ for id_ in answer if id_ != pad])
                    of_mask.append({"score": score, "token": token, "token_str": "", "sequence": ""})
                waiting[single] += of_mask
                proposals.append(of_mask)
                row += 1
            results.append(proposals[0] if single else proposals)
        for single, entries in waiting.items():
            whole = self.tokenizer.batch_decode(filled[single], skip_special_tokens=single)
            words = self.tokenizer.batch_decode([[entry["token"]] for entry in entries])
            for entry, text, word in zip(entries, whole, words, strict=True):
                entry["token_str"], entry["sequence"] = word, text
        return results

    def _targets(self, targets: str | Sequence[str] | None) -> list[int] | None:
        """Return the tokens that words stand for, each once."""
        if targets is None:
            return None
        found: dict[int, None] = {}
        for target in [targets] if isinstance(targets, str) else targets:
            token = self.tokenizer.convert_tokens_to_ids(target)
            if token == self.tokenizer.unk_token_id and target != self.tokenizer.unk_token:
                pieces = self.tokenizer.encode(target)[1:-1]
                if not pieces:
                    logger.warning("target %r has no token and is left out", target)
                    continue
                token = pieces[0]
                name = self.tokenizer.convert_ids_to_tokens(token)
                logger.warning("target %r is no token; its first one, %r, stands for it", target, name)
            found[token] = None
        if not found:
            raise ConfigError(f"targets must name at least one token, got {targets!r}. Name some, or leave it out.")
        return list(found)
