"""Text generation with a causal head: the next token again and again, greedily or drawn.

The model was trained on `<s> text </s>`, so a prompt is `<s> text` without the `</s>` that transformers' pipeline puts
after it, and the text ends where the model says `</s>`. Keys and values of earlier tokens are kept, positions count on
from the prompt, and a text that has ended leaves the batch. `<s>`, `<pad>`, `<mask>` and rows beyond the tokenizer's
tokens are never said.

Suffixes: T tokens of a packed batch, B sequences, V vocabulary, K candidates.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from xlmrxl_train.data.files import shown
from xlmrxl_train.inference.base import Options, Pipeline, at_least, yes_or_no
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.model import KeyValueCache, PackedSequences, PreTrained, XLMRobertaXLForCausalLM

_COST_OF_LOGITS = 16  # tokens, for each sequence


@dataclass(kw_only=True, frozen=True)
class TextGenerationOptions(Options):
    """Options of text-generation."""

    max_new_tokens: int = 20
    """Tokens beyond the prompt; fewer where the model has no more positions."""
    do_sample: bool = False
    """Whether tokens are drawn; otherwise the most probable one is taken."""
    temperature: float = 1.0
    """Drawing: what logits are divided by."""
    top_k: int | None = 50
    """Drawing: from so many of the most probable tokens; None: all."""
    top_p: float = 1.0
    """Drawing: from the fewest tokens that have this probability together."""
    seed: int | None = None
    """Drawing: the same seed and prompt give the same text, whatever is asked beside; None: another one each time."""
    num_return_sequences: int = 1
    """Texts per prompt; more than one only where tokens are drawn."""
    return_full_text: bool = True
    """Whether the prompt stands before the text."""
    use_cache: bool = True
    """Whether keys and values are kept; otherwise all tokens are read again at every step, with the same outcome."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        faults = super().faults() + at_least("max_new_tokens", self.max_new_tokens, 1)
        faults += at_least("top_k", self.top_k, 1, or_none=True) + at_least("seed", self.seed, 0, or_none=True)
        faults += at_least("num_return_sequences", self.num_return_sequences, 1)
        for name in ("do_sample", "return_full_text", "use_cache"):
            faults += yes_or_no(name, getattr(self, name))
        if not _above_zero(self.temperature):
            faults.append(f"temperature must be a number above 0, got {shown(self.temperature)}. "
                          "Set do_sample=False for the most probable tokens.")  # fmt: skip
        if not _above_zero(self.top_p) or self.top_p > 1:
            faults.append(f"top_p must be a number above 0 and at most 1, got {shown(self.top_p)}. Leave it out for 1.")
        if not faults and self.num_return_sequences > 1 and not self.do_sample:
            faults.append(f"num_return_sequences must be 1 without do_sample, got {self.num_return_sequences}: all "
                          "texts would be the same. Set do_sample=True.")  # fmt: skip
        return faults


@dataclass(kw_only=True, slots=True)
class _Text:
    """A text that is being written."""

    owner: int  # the work of the batch that it belongs to
    prompt: list[int]
    room: int  # tokens that may be added
    generator: torch.Generator | None
    new: list[int] = field(default_factory=list)


class TextGeneration(Pipeline):
    """Returns for each prompt a list of {"generated_text": ...}, as the Hub has it."""

    task: ClassVar[str] = "text-generation"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLForCausalLM
    options_class: ClassVar[type[Options]] = TextGenerationOptions
    causal: ClassVar[bool | None] = True

    def encode(self, contents: Sequence[str], options: TextGenerationOptions) -> Iterable[list[int]]:
        """Tokenise prompts."""
        limit = self.cut_at(options)
        return [ids[:-1] for ids in self.tokenizer.encode_batch(contents, max_length=limit)]

    def work(self, item: Input, content: str, encoded: list[int], options: TextGenerationOptions) -> Work:
        """Return a prompt."""
        prompt = self.fitting(item, encoded, options)
        size = len(prompt) + options.max_new_tokens + _COST_OF_LOGITS
        return Work(size=size * options.num_return_sequences, content=(content, prompt))

    def compute(self, works: Sequence[Work], options: TextGenerationOptions) -> Sequence[Any]:
        """Write the texts of a batch."""
        limit = self.limit(options)
        texts = [
            _Text(
                owner=owner,
                prompt=prompt,
                room=min(options.max_new_tokens, limit + 1 - len(prompt)),  # the last token is never read
                generator=_generator(options, prompt, number) if options.do_sample else None,
            )
            for owner, (_, prompt) in enumerate(work.content for work in works)
            for number in range(options.num_return_sequences)
        ]
        with torch.no_grad():
            self._write(texts, options)
        results: list[list[dict[str, str]]] = [[] for _ in works]
        for text in texts:
            before = self.tokenizer.decode(text.prompt, skip_special_tokens=True)
            whole = self.tokenizer.decode([*text.prompt, *text.new], skip_special_tokens=True)
            prompt = works[text.owner].content[0] if options.return_full_text else ""
            results[text.owner].append({"generated_text": prompt + whole[len(before) :]})
        return results

    def _write(self, texts: list[_Text], options: TextGenerationOptions) -> None:
        """Add tokens until every text has ended."""
        cache = KeyValueCache() if options.use_cache else None
        read = [0] * len(texts)  # tokens of each text that the cache holds
        while texts:
            unread = [[*text.prompt, *text.new][start:] for text, start in zip(texts, read, strict=True)]
            logits_BV = self._next(unread, read, cache)
            going = []
            for index, (text, row_V) in enumerate(zip(texts, logits_BV, strict=True)):
                text.new.append(_choose(row_V, text.generator, options))
                if text.new[-1] != self.tokenizer.eos_token_id and len(text.new) < text.room:
                    going.append(index)
            if cache is not None:
                read = [read[index] + len(unread[index]) for index in going]
                if len(going) < len(texts):
                    cache.keep(going)
            else:
                read = [0] * len(going)
            texts = [texts[index] for index in going]

    def _next(self, unread: Sequence[Sequence[int]], read: Sequence[int], cache: KeyValueCache | None) -> Tensor:
        """Return the logits [B, V] of the token after the last one of each text, in float32."""
        device, first = self.model.device, self.tokenizer.pad_token_id + 1
        sequences = PackedSequences.from_lengths([len(tokens) for tokens in unread])
        ids_T = torch.tensor([id_ for tokens in unread for id_ in tokens])
        positions_T = torch.cat(
            [torch.arange(start, start + len(tokens)) + first for tokens, start in zip(unread, read, strict=True)]
        )
        last_B = sequences.offsets[1:].long() - 1
        output = self.model(
            input_ids=ids_T.to(device), position_ids=positions_T.to(device), sequences=sequences.to(device),
            rows=last_B.to(device), past_key_values=cache,
        )  # fmt: skip
        logits_BV = self.finite(output.logits).float()[:, : len(self.tokenizer)]
        never = [self.tokenizer.bos_token_id, self.tokenizer.pad_token_id, self.tokenizer.mask_token_id]
        return logits_BV.index_fill(1, torch.tensor(never, device=device), -torch.inf)


def _above_zero(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _choose(logits_V: Tensor, generator: torch.Generator | None, options: TextGenerationOptions) -> int:
    """Return the most probable token, or one that is drawn."""
    if generator is None:
        return int(logits_V.argmax())
    count = len(logits_V) if options.top_k is None else min(options.top_k, len(logits_V))
    best_K, token_K = ((logits_V - logits_V.max()) / options.temperature).topk(count)  # 0 at most: never infinite
    share_K = best_K.softmax(-1)
    share_K = share_K.masked_fill(share_K.cumsum(-1) - share_K >= options.top_p, 0.0)  # the first one always stays
    return int(token_K[torch.multinomial(share_K.cpu(), 1, generator=generator)])


def _generator(options: TextGenerationOptions, prompt: Sequence[int], number: int) -> torch.Generator:
    """Return the random numbers of one text: they depend on nothing that is computed beside it."""
    generator = torch.Generator()
    if options.seed is None:
        generator.seed()
        return generator
    digest = hashlib.sha256(repr((options.seed, number, list(prompt))).encode()).digest()
    return generator.manual_seed(int.from_bytes(digest[:7], "big"))
