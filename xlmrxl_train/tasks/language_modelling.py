"""What predicting tokens of a text has in common, masked or next: which text makes a sequence, and what is scored."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch

from xlmrxl_train.config import DatasetConfig, LanguageModellingConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.joining import Line, join_lines
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.model import ModelOutput
from xlmrxl_train.tasks.task import Prediction, Task

IGNORED = -100  # the label of a token that is not predicted, as in torch's cross entropy
_LINES = 1000  # rows tokenised at a time


class LanguageModelling(Task):
    """Roles: text, text_pair (optional, its translation). Kinds differ in `collate`: which tokens are predicted."""

    learns_from_labels: ClassVar[bool] = False
    trains_all_words: ClassVar[bool] = True
    default_metrics: ClassVar[tuple[str, ...]] = ("loss", "perplexity")

    def __init__(self, config: LanguageModellingConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.join = config.join
        self.roles = [role for role in ("text", "text_pair") if role in dataset.columns]

    @property
    def encoding(self) -> dict[str, Any]:
        """Add which rows make a sequence."""
        return super().encoding | {"join": self.join}

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the head's size is the vocabulary's."""
        return {}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield the rows that have text, or the sequences that consecutive rows make."""
        if self.join != "none":
            yield from self._joined(rows)
            return
        for row in rows:
            values: dict[str, Any] = {role: self.text_of(row, role) for role in self.roles}
            if any(text.strip() for text in values.values()):
                yield Example(id=row.id, values=values, where=row.where, language=row.language)

    def _joined(self, rows: Iterable[Row]) -> Iterator[Example]:
        room = self.max_length - 2  # <s> and </s> are added
        for block in join_lines(self._lines(rows), room, self.tokenizer.eos_token_id):
            values = {"input_ids": block.input_ids}
            yield Example(id=block.id, values=values, where=block.where, language=block.language)

    def _lines(self, rows: Iterable[Row]) -> Iterator[Line]:
        """Yield the lines of rows, tokenised."""
        rows, new_document = iter(rows), False
        while chunk := list(islice(rows, _LINES)):
            texts = [self.text_of(row, "text") for row in chunk]
            parts = [text.split("\n") if self.join == "documents" else [text] for text in texts]
            encoded = iter(self.tokenizer.encode_batch([line for lines in parts for line in lines]))
            for row, lines in zip(chunk, parts, strict=True):
                new_document |= self.join == "documents"
                for number, text in enumerate(lines):
                    blank, input_ids = not text.strip(), next(encoded)[1:-1]
                    yield Line(
                        id=f"{row.id}:{number + 1}" if len(lines) > 1 else row.id,
                        where=row.where,
                        language=row.language,
                        input_ids=[] if blank else input_ids,  # some vocabularies have a piece for a lone space
                        new_document=new_document,
                    )
                    # In plain text a blank line ends a document; it has no token, and the next line says so.
                    new_document = self.join == "lines" and blank

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise a text, or a text and its translation as one sequence; joined rows are tokens already."""
        if self.join != "none":
            bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
            encoded = [[bos, *example.values["input_ids"], eos] for example in examples]
        else:
            texts, *pairs = ([example.values[role] for example in examples] for role in self.roles)
            encoded = self.tokenizer.encode_batch(texts, pairs[0] if pairs else None, max_length=self.max_length)
        return [[Feature(example=0, input_ids=input_ids)] for input_ids in encoded]

    def no_target(self) -> dict[str, Any]:
        """Return nothing: `collate` predicts no token of a feature without an example."""
        return {}

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return the summed loss of each example, with its number of predicted tokens as reference."""
        assert output.target_losses is not None
        lengths = torch.tensor(batch.inputs["sequences"].lengths)
        sequence_of_token = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        sequence_of_target = sequence_of_token[batch.inputs["rows"].cpu()]
        losses = torch.zeros(len(lengths), dtype=torch.float64)
        losses.index_add_(0, sequence_of_target, output.target_losses.double().cpu())
        counts = torch.bincount(sequence_of_target, minlength=len(lengths))
        return [
            Prediction(table=table, example=example, prediction=loss, reference=count)
            for (table, example), loss, count in zip(batch.examples, losses.tolist(), counts.tolist(), strict=True)
        ]

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Return the loss per predicted token, in nats, and the number of tokens."""
        tokens = prediction.reference
        return {"loss": prediction.prediction / tokens if tokens else None, "tokens": tokens}
