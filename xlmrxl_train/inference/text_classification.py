"""Text classification: labels of a text or of a pair, with a probability, or a number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xlmrxl_train.data.files import shown
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.base import Options, Pipeline, at_least, one_of
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.model import PreTrained, XLMRobertaXLForSequenceClassification

ONLY_THE_BEST = ""  # the Hub's way of saying that top_k was not given

Texts = tuple[str, str | None]


@dataclass(kw_only=True, frozen=True)
class TextClassificationOptions(Options):
    """Options of text-classification."""

    top_k: int | str | None = ONLY_THE_BEST
    """Labels per text in a list, best first; None: all; "": the best one, not in a list of its own."""
    function_to_apply: str | None = None
    """sigmoid, softmax or none, applied to the logits; None: what suits the model's problem."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        faults = super().faults()
        if self.top_k != ONLY_THE_BEST:
            faults += at_least("top_k", self.top_k, 1, or_none=True)
        if self.function_to_apply is not None:
            faults += one_of("function_to_apply", self.function_to_apply, ("sigmoid", "softmax", "none"))
        return faults


class TextClassification(Pipeline):
    """Takes a text, or {"text": ..., "text_pair": ...}; returns label and score, of one label or of several."""

    task: ClassVar[str] = "text-classification"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLForSequenceClassification
    options_class: ClassVar[type[Options]] = TextClassificationOptions

    def one(self, inputs: Any, result: Any, options: dict[str, Any]) -> Any:
        """Return the label of a single text in a list, as the Hub does unless top_k was given."""
        return [result] if isinstance(inputs, str) and "top_k" not in options else result

    def parse(self, where: str, line: str) -> Any:
        """Return a text, or the two that have a tab between them."""
        texts = line.split("\t")
        if len(texts) > 2:
            raise DataError(f"{where}: expected a text, or two with a tab between, found {len(texts)}. Mend the line.")
        return dict(zip(("text", "text_pair"), texts, strict=False)) if len(texts) == 2 else line

    def read(self, item: Input, options: Any) -> Texts:
        """Return a text and maybe a second one."""
        value = item.value
        if isinstance(value, str):
            return self.text_of(item, value), None
        if not isinstance(value, dict) or set(value) - {"text", "text_pair"} or "text" not in value:
            raise DataError(
                f'{item.where}: text-classification must have a text or {{"text": ..., "text_pair": ...}}, got '
                f"{shown(value)}. Mend or remove the input."
            )
        pair = value.get("text_pair")
        second = None if pair is None else self.text_of(item, pair, "a text for text_pair")
        return self.text_of(item, value["text"], "a text for text"), second

    def encode(self, contents: Sequence[Texts], options: Any) -> Iterable[list[int]]:
        """Tokenise single texts and pairs, each kind at once; of a pair that is too long the longer text is cut."""
        limit = self.cut_at(options)
        single = iter(self.tokenizer.encode_batch([text for text, pair in contents if pair is None], None, limit))
        both = [(text, pair) for text, pair in contents if pair is not None]
        pairs = iter(self.tokenizer.encode_batch([text for text, _ in both], [pair for _, pair in both], limit))
        return [next(single if pair is None else pairs) for _, pair in contents]

    def compute(self, works: Sequence[Work], options: TextClassificationOptions) -> Sequence[Any]:
        """Run the model and read labels off."""
        logits = self.run([work.content for work in works]).logits
        assert logits is not None
        logits = self.finite(logits).float().cpu()
        function = options.function_to_apply or self._function()
        scores = logits.sigmoid() if function == "sigmoid" else logits.softmax(-1) if function == "softmax" else logits
        return [self._labels(row, options.top_k) for row in scores.tolist()]

    def _function(self) -> str:
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "sigmoid" if several else "softmax"

    def _labels(self, scores: list[float], top_k: int | str | None) -> Any:
        names = self.model.config.id2label or {}
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        labels = [{"label": names[index], "score": scores[index]} for index in order]
        return labels[0] if isinstance(top_k, str) else labels[:top_k]
