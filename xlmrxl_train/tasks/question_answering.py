"""Extractive question answering: find the answer to a question as a piece of a context.

A sequence is `<s> question </s></s> part of the context </s>`. A context longer than a window becomes several windows,
which overlap and are features of one example; `spans` says how they are cut and how the best answer over all of them
is found. The question is never cut. A window that holds the first gold answer trains on its first and last token, one
that does not on <s>, as SQuAD v1.1 is trained on (google-research/xtreme at 1e21ba07, third_party/processors/squad.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import torch

from xlmrxl_train import metrics
from xlmrxl_train.config import DatasetConfig, QuestionAnsweringConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLForQuestionAnswering
from xlmrxl_train.tasks.spans import Alignment, Answer, Window, best_spans, cut, read_answers
from xlmrxl_train.tasks.task import Prediction, Task, rounded

NO_TARGET = -100  # a position that the loss leaves out
SHOWN_ANSWERS = 3  # of the n best, in files of predictions


class QuestionAnswering(Task):
    """Trains `XLMRobertaXLForQuestionAnswering`; roles: context, question, answers.

    `answers` is as the Hub has SQuAD's: {"text": [...], "answer_start": [...]}, characters counted from 0.
    """

    model_class: ClassVar[type] = XLMRobertaXLForQuestionAnswering
    default_metrics: ClassVar[tuple[str, ...]] = ("squad_f1", "squad_exact_match")
    describes_texts: ClassVar[bool] = True

    def __init__(self, config: QuestionAnsweringConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        """Take over the settings.

        Raises:
            ConfigError: A metric has no rule for the language of an answer.
        """
        super().__init__(config, dataset, tokenizer)
        self.stride = config.stride
        self.n_best = config.n_best
        self.max_answer_length = config.max_answer_length
        for name in self.metrics:
            known = getattr(metrics.load(name), "LANGUAGES", None)
            if known and (others := [code for code in dataset.languages if language_of_answer(code) not in known]):
                raise ConfigError(
                    f"dataset.metrics: {name} must have answers in {', '.join(known)}, got {', '.join(others)}. "
                    "Use squad_f1 and squad_exact_match, or fewer dataset.languages."
                )

    @property
    def encoding(self) -> dict[str, Any]:
        """Add how windows are cut."""
        return super().encoding | {"stride": self.stride}

    def model_options(self) -> dict[str, Any]:
        """Return the number of outputs per token: start and end."""
        return {"num_labels": 2}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield the rows; every answer stands in its context."""
        for row in rows:
            values: dict[str, Any] = {role: self._text(row, role) for role in ("context", "question")}
            texts, starts = self._answers(row, values["context"])
            yield Example(
                id=row.id,
                values=values | {"answers": texts, "starts": starts},
                where=row.where,
                language=row.language,
            )

    def _text(self, row: Row, role: str) -> str:
        text = row.values.get(role)
        if isinstance(text, str) and text.strip():
            return text
        raise DataError(
            f"{row.where}: column {self.dataset.columns[role]!r} must hold text, got {shown(text)}. "
            f"Mend the row, or map another column with dataset.columns.{role}=<column>."
        )

    def _answers(self, row: Row, context: str) -> tuple[list[str], list[int]]:
        """Return text and first character of each gold answer."""
        if not self.labelled:
            return [], []
        raw = row.values.get("answers")
        texts, starts = _texts_and_starts(raw)
        if raw is None or (texts == [] and starts == []):
            raise DataError(
                f"{row.where}: expected at least one answer, since the split trains or is scored, found none. "
                "Add it, or take the row out."
            )
        if texts is None or starts is None or len(texts) != len(starts):
            raise DataError(
                f'{row.where}: expected answers as {{"text": ["..."], "answer_start": [0]}}, one start per text, '
                f"found {shown(raw)}. Mend the row, or map another column with dataset.columns.answers=<column>."
            )
        for text, start in zip(texts, starts, strict=True):
            found = context[start : start + len(text)] if start >= 0 else ""
            if found != text or not text.strip():
                other = context.find(text)
                there = f"has it at {other}" if other >= 0 and text.strip() else "does not have it"
                raise DataError(
                    f"{row.where}: expected the answer {shown(text)} at character {start} of its context, "
                    f"found {shown(found)}; the context {there}. Mend the answer or its answer_start."
                )
        return texts, starts

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise questions and contexts, each context once, and cut windows."""
        contexts = list(dict.fromkeys(example.values["context"] for example in examples))
        encoded = self.tokenizer(contexts, return_offsets_mapping=True)
        tokens_of = {
            context: (ids[1:-1], Alignment(context, offsets[1:-1]))
            for context, ids, offsets in zip(contexts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        }
        questions = self.tokenizer.encode_batch([example.values["question"] for example in examples])
        return [
            self._windows(example, question_ids, *tokens_of[example.values["context"]])
            for example, question_ids in zip(examples, questions, strict=True)
        ]

    def _windows(
        self, example: Example, question_ids: list[int], context_ids: list[int], alignment: Alignment
    ) -> list[Feature]:
        """Return one feature per window; what they have in common stands in the first one only.

        Args:
            example: Whose features they are.
            question_ids: `<s> question </s>`.
            context_ids: Without special tokens.
            alignment: Of these with the context's characters.
        """
        eos = self.tokenizer.eos_token_id
        prefix = [*question_ids, eos]
        room = self.max_length - len(prefix) - 1
        if room < self.stride:
            raise DataError(
                f"{example.where}: the question has {len(prefix) - 3} tokens, so that of task.max_length = "
                f"{self.max_length} only {max(room, 0)} are left for the context, fewer than task.stride = "
                f"{self.stride}. Raise task.max_length, lower task.stride, or shorten the question."
            )
        target = self._target(example, alignment)
        common = {
            "question": example.values["question"],
            "context": example.values["context"],
            "begins": alignment.begins,
            "ends": alignment.ends,
            "answers": example.values["answers"],
            "language": language_of_answer(example.language),
        }
        features = []
        for first, end in cut(len(context_ids), room, self.stride):
            positions = {"start": NO_TARGET, "end": NO_TARGET}
            if target is not None:
                inside = first <= target[0] and target[1] < end
                shift = len(prefix) - first
                positions = {
                    name: token + shift if inside else 0 for name, token in zip(positions, target, strict=True)
                }
            columns = {"first": first, "prefix": len(prefix), **positions, **common}
            features.append(Feature(example=0, input_ids=[*prefix, *context_ids[first:end], eos], columns=columns))
            common = {name: type(value)() for name, value in common.items()}
        return features

    def _target(self, example: Example, alignment: Alignment) -> tuple[int, int] | None:
        """Return first and last token of the first gold answer; None if there is no answer."""
        if not alignment.begins:
            raise DataError(
                f"{example.where}: column {self.dataset.columns['context']!r} must hold text that the tokenizer has "
                f"tokens for, got {shown(example.values['context'])}. Mend the row."
            )
        spans = []
        for text, start in zip(example.values["answers"], example.values["starts"], strict=True):
            spans.append(alignment.tokens_of(start, start + len(text)))
            if spans[-1] is None:
                raise DataError(
                    f"{example.where}: expected an answer that the tokenizer has tokens for, found {shown(text)}. "
                    "Mend the row."
                )
        return spans[0] if spans else None

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack windows; targets are positions in each window's sequence."""
        input_ids, position_ids = pack([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        starts = [feature.columns["start"] for feature in features]
        ends = [feature.columns["end"] for feature in features]
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": PackedSequences.from_lengths([len(feature.input_ids) for feature in features]),
                "start_positions": torch.tensor(starts),
                "end_positions": torch.tensor(ends),
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=sum(position != NO_TARGET for position in [*starts, *ends]) / 2,
        )

    def no_target(self) -> dict[str, Any]:
        """Return positions that count nothing."""
        return {"start": NO_TARGET, "end": NO_TARGET}

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return the best answer over all windows of each example, beside its gold answers and their language."""
        return [
            Prediction(
                table=table,
                example=example,
                prediction=answers[0].text if answers else "",
                reference={"texts": common["answers"], "language": common["language"]} if self.labelled else None,
                details={
                    "question": common["question"],
                    "best": [
                        {"text": answer.text, "begin": answer.begin, "probability": rounded(answer.probability)}
                        for answer in answers[:SHOWN_ANSWERS]
                    ],
                },
            )
            for (table, example), common, answers in self.answers(output, batch.examples, features)
        ]

    def answers(
        self, output: ModelOutput, places: Sequence[tuple[int, int]], features: Sequence[Feature]
    ) -> Iterator[tuple[tuple[int, int], dict[str, Any], list[Answer]]]:
        """Yield for each example its place, what its windows have in common, and its n best answers, best first.

        Args:
            output: Of the model.
            places: (table, example) of each feature; the examples are yielded in their order.
            features: Of the batch.
        """
        assert output.start_logits is not None and output.end_logits is not None
        ends_of_sequences = np.cumsum([len(feature.input_ids) for feature in features])[:-1]
        starts = np.split(output.start_logits.detach().float().cpu().numpy(), ends_of_sequences)
        ends = np.split(output.end_logits.detach().float().cpu().numpy(), ends_of_sequences)
        order = sorted(range(len(features)), key=lambda index: (places[index], features[index].columns["first"]))
        for place, group in groupby(order, key=lambda index: places[index]):
            rows = list(group)
            common = features[rows[0]].columns
            spans = best_spans(
                [_window(features[row]) for row in rows],
                [starts[row] for row in rows],
                [ends[row] for row in rows],
                n_best=self.n_best,
                max_answer_length=self.max_answer_length,
            )
            answers = read_answers(common["context"], common["begins"], common["ends"], spans, n_best=self.n_best)
            yield place, common, answers

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Return the question, the answer, the gold answers, and the best few with their place in the context."""
        details, reference = prediction.details, prediction.reference and prediction.reference["texts"]
        shown_first = {"question": details["question"], "prediction": prediction.prediction, "reference": reference}
        return {**shown_first, "best": details["best"]}


def language_of_answer(code: str) -> str:
    """Return the language of a context, and so of its answers: of MLQA's "de-en" (context, question) it is "de"."""
    return code.partition("-")[0]


def _window(feature: Feature) -> Window:
    prefix = feature.columns["prefix"]
    return Window(first=feature.columns["first"], length=len(feature.input_ids) - prefix - 1, prefix=prefix)


def _texts_and_starts(raw: object) -> tuple[list[str] | None, list[int] | None]:
    """Return what stands under "text" and "answer_start"; None in place of what is no list of its kind."""
    values = raw if isinstance(raw, dict) else {}
    texts, starts = values.get("text"), values.get("answer_start")
    return (
        texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None,
        starts if isinstance(starts, list) and all(type(start) is int for start in starts) else None,
    )
