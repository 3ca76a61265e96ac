"""Multiple choice: which of any number of choices fits a context and a question.

Texts are put together and cut by the rules of `tasks.multiple_choice`, with which the models are trained.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from xlmrxl_train.checks.tasks import faults_of_templates
from xlmrxl_train.config import DatasetConfig, MultipleChoiceConfig
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.base import Options, Pipeline, at_least
from xlmrxl_train.inference.rows import Features, as_options, collate, encode_each, example_of
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.inference.text_classification import ONLY_THE_BEST
from xlmrxl_train.model import PreTrained, XLMRobertaXLForMultipleChoice
from xlmrxl_train.tasks.multiple_choice import MultipleChoice as Task

_TEXTS = ("context", "question")


@dataclass(kw_only=True, frozen=True)
class MultipleChoiceOptions(Options):
    """Options of multiple-choice."""

    top_k: int | str | None = ONLY_THE_BEST
    """Choices per input in a list, best first; None: all; "": the best one, not in a list."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """As `dataset.templates` of the run that trained the model, if it had some."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        faults = [] if self.top_k == ONLY_THE_BEST else at_least("top_k", self.top_k, 1, or_none=True)
        if not all(isinstance(text, str) for text in _texts_of(self.templates)):
            faults.append(f"templates must map text and text_pair to texts, got {shown(self.templates)}. Mend it.")
        else:
            columns = dict.fromkeys((*_TEXTS, "choices"), "")
            faults += faults_of_templates(DatasetConfig(columns=columns, templates=dict(self.templates)))
        return super().faults() + faults


def _texts_of(templates: object) -> Iterable[object]:
    """Return the texts that should be texts; of what is no mapping, something that is none."""
    return templates.values() if isinstance(templates, Mapping) else (None,)


class MultipleChoice(Pipeline):
    """Takes {"context": ..., "question": ..., "choices": [...]}, one of the two texts may be left out.

    Returns index (from 0), choice and score, a probability among the choices, of one choice or of several.
    """

    task: ClassVar[str] = "multiple-choice"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLForMultipleChoice
    options_class: ClassVar[type[Options]] = MultipleChoiceOptions

    def parse(self, where: str, line: str) -> Any:
        """Return the text and the choices that have tabs between them."""
        text, *choices = line.split("\t")
        if len(choices) < 2:
            raise DataError(f"{where}: expected a text, a tab, and choices with tabs between, at least two, found "
                            f"{len(choices)} choices. Mend the line.")  # fmt: skip
        return {"context": text, "choices": choices}

    def read(self, item: Input, options: MultipleChoiceOptions) -> Features:
        """Return choices and what they belong to as an example of the task."""
        value = item.value
        roles = [role for role in _TEXTS if isinstance(value, dict) and role in value]
        choices = value.get("choices") if isinstance(value, dict) else None
        if not roles or set(value) - {*_TEXTS, "choices"} or not isinstance(choices, list) or len(choices) < 2:
            raise DataError(
                f'{item.where}: multiple-choice must have {{"context": ..., "question": ..., "choices": [...]}} with '
                f"one of the two texts or both, and two choices or more, got {shown(value)}. Mend or remove the input."
            )
        for role in roles:
            self.text_of(item, value[role], f"a text for {role}")
        for choice in choices:
            self.text_of(item, choice, "a text for each of the choices")
        config = MultipleChoiceConfig(max_length=self.limit(options))
        columns = {role: role for role in [*roles, "choices"]}
        labels = [str(number) for number in range(len(choices))]
        dataset = DatasetConfig(columns=columns, labels=labels, templates=dict(options.templates))
        if faults := faults_of_templates(dataset):  # they ask for a text that this input lacks
            raise DataError(f"{item.where}: {faults[0]}")
        task = Task(config, dataset, self.tokenizer)
        task.labelled = False
        return Features(example=example_of(task, Row(id="", values=value, where=item.where)), task=task)

    def encode(self, contents: Sequence[Features], options: Any) -> Iterable[Any]:
        """Tokenise the choices of each input; how many it has is part of its task."""
        return [encode_each(content.task, [content.example])[0] for content in contents]

    def work(self, item: Input, content: Features, encoded: Any, options: Any) -> Work:
        """Return all choices of an input."""
        if isinstance(encoded, DataError):
            raise as_options(encoded)
        content.rows = encoded
        return content.work()

    def compute(self, works: Sequence[Work], options: MultipleChoiceOptions) -> Sequence[Any]:
        """Run the model and compare the choices of each input."""
        batch, features = collate(works)
        task = works[0].content.task
        output = self.run_batch(batch, task)
        assert output.logits is not None
        self.finite(output.logits)
        results: list[Any] = [None] * len(works)
        for prediction in task.predict(output, batch, features):
            choices: list[str] = works[prediction.example].content.example.values["choices"]
            scores = softmax(prediction.details["scores"])
            order = sorted(range(len(choices)), key=lambda index: -scores[index])
            ranked = [{"index": index, "choice": choices[index], "score": scores[index]} for index in order]
            results[prediction.example] = ranked[0] if isinstance(options.top_k, str) else ranked[: options.top_k]
        return results


def softmax(logits: Sequence[float]) -> list[float]:
    """Return the probabilities of a few logits."""
    highest = max(logits)
    shares = [math.exp(logit - highest) for logit in logits]
    total = sum(shares)
    return [share / total for share in shares]
