"""Question answering: the piece of a context that answers a question, however long the context is.

Contexts are cut into windows that overlap, and the best answer over all of them is found, by the rules of
`tasks.question_answering`, with which the models are trained and evaluated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from xlmrxl_train.config import DatasetConfig, QuestionAnsweringConfig
from xlmrxl_train.data.examples import Batch, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.planning import evaluation_batches
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.base import Options, Pipeline, at_least
from xlmrxl_train.inference.rows import Features, as_options, collate, encode_each, example_of
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.model import ModelOutput, PreTrained, XLMRobertaXLForQuestionAnswering
from xlmrxl_train.tasks.question_answering import QuestionAnswering as Task

_ROLES = ("question", "context")


@dataclass(kw_only=True, frozen=True)
class QuestionAnsweringOptions(Options):
    """Options of question-answering."""

    max_length: int | None = 384
    """Tokens of a window: question, a part of the context, special ones."""
    stride: int = 128
    """Tokens of the context from the start of a window to the start of the next one."""
    n_best: int = 20
    """Starts, and ends, of a window that are paired."""
    max_answer_length: int = 30
    """Tokens of the longest answer."""
    top_k: int = 1
    """Answers; more than one come in a list, best first."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        names = ("stride", "n_best", "max_answer_length", "top_k")
        return super().faults() + [fault for name in names for fault in at_least(name, getattr(self, name), 1)]


class QuestionAnswering(Pipeline):
    """Takes {"question": ..., "context": ...}; returns answer, score, and its first character and the one after it."""

    task: ClassVar[str] = "question-answering"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLForQuestionAnswering
    options_class: ClassVar[type[Options]] = QuestionAnsweringOptions

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Answer as `Pipeline` does; question= and context= may be given by name, each a text or a list."""
        if inputs is None and {"question", "context"} <= set(options):
            question, context = options.pop("question"), options.pop("context")
            if isinstance(question, list) and isinstance(context, list) and len(question) == len(context):
                inputs = [{"question": one, "context": other} for one, other in zip(question, context, strict=True)]
            elif isinstance(question, list):
                inputs = [{"question": one, "context": context} for one in question]
            else:
                inputs = {"question": question, "context": context}
        return super().__call__(inputs, **options)

    def parse(self, where: str, line: str) -> Any:
        """Return the question and the context that have a tab between them."""
        texts = line.split("\t")
        if len(texts) != 2:
            raise DataError(f"{where}: expected a question, a tab and a context, found {len(texts)} texts. "
                            "Mend the line.")  # fmt: skip
        return dict(zip(_ROLES, texts, strict=True))

    def read(self, item: Input, options: QuestionAnsweringOptions) -> Features:
        """Return a question and its context as an example of the task."""
        if not isinstance(item.value, dict) or set(item.value) != set(_ROLES):
            raise DataError(
                f'{item.where}: question-answering must have {{"question": ..., "context": ...}}, got '
                f"{shown(item.value)}. Mend or remove the input."
            )
        for role in _ROLES:
            self.text_of(item, item.value[role], f"a text for {role}")
        task = self._task(options)
        return Features(example=example_of(task, Row(id="", values=item.value, where=item.where)), task=task)

    def encode(self, contents: Sequence[Features], options: QuestionAnsweringOptions) -> Iterable[Any]:
        """Tokenise and cut windows."""
        return encode_each(self._task(options), [content.example for content in contents])

    def work(self, item: Input, content: Features, encoded: Any, options: Any) -> Work:
        """Return all windows of a context."""
        if isinstance(encoded, DataError):
            raise as_options(encoded)
        content.rows = encoded
        return content.work()

    def compute(self, works: Sequence[Work], options: QuestionAnsweringOptions) -> Sequence[Any]:
        """Run the model and read answers off."""
        batch, features = collate(works)
        task = self._task(options)
        output = self._logits(task, batch, features, options.tokens_per_batch)
        assert output.start_logits is not None and output.end_logits is not None
        self.finite(output.start_logits + output.end_logits)
        results = []
        for _, _, answers in task.answers(output, batch.examples, features):
            shown_answers = [
                {
                    "score": answer.probability,
                    "start": answer.begin,
                    "end": answer.begin + len(answer.text),
                    "answer": answer.text,
                }
                for answer in answers[: options.top_k]
            ] or [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]
            results.append(shown_answers[0] if options.top_k == 1 else shown_answers)
        return results

    def _logits(self, task: Task, batch: Batch, features: Sequence[Feature], tokens_per_batch: int) -> ModelOutput:
        """Run the model, on the windows of a context that is too long for one batch in several ones."""
        if batch.num_tokens <= tokens_per_batch:
            return self.run_batch(batch, task)
        starts: list[Tensor] = []
        ends: list[Tensor] = []
        for part in evaluation_batches([len(feature.input_ids) for feature in features], tokens_per_batch):
            places = [batch.examples[index] for index in part]  # the longest come first, as in the batch
            output = self.run_batch(task.collate([features[index] for index in part], places, draw=0), task)
            assert output.start_logits is not None and output.end_logits is not None
            starts.append(output.start_logits)
            ends.append(output.end_logits)
        return ModelOutput(start_logits=torch.cat(starts), end_logits=torch.cat(ends))

    def _task(self, options: QuestionAnsweringOptions) -> Task:
        config = QuestionAnsweringConfig(
            max_length=self.limit(options),
            stride=options.stride,
            n_best=max(options.n_best, options.top_k),
            max_answer_length=options.max_answer_length,
        )
        task = Task(config, DatasetConfig(columns={role: role for role in _ROLES}), self.tokenizer)
        task.labelled = False
        return task
