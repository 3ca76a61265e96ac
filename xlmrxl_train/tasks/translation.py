"""Translation: an encoder reads a text, a decoder writes it in another language, one token after the other.

A feature is both texts' tokens in one list, so that budgets of tokens count them all: <s> source </s> target </s>.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch

from xlmrxl_train.config import DatasetConfig, TranslationConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLEncoderDecoder
from xlmrxl_train.tasks.task import Prediction, Task

IGNORED = -100  # the label of a token that is not predicted, as in torch's cross entropy


class Translation(Task):
    """Trains `XLMRobertaXLEncoderDecoder`; roles: text, text_pair (its translation)."""

    model_class: ClassVar[type] = XLMRobertaXLEncoderDecoder
    default_metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf")
    describes_texts: ClassVar[bool] = True
    trains_all_words: ClassVar[bool] = True

    def __init__(self, config: TranslationConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.max_target_length = config.max_target_length

    @property
    def encoding(self) -> dict[str, Any]:
        """Add the length of translations."""
        return super().encoding | {"max_target_length": self.max_target_length}

    @property
    def notes(self) -> list[str]:
        """Say how translations were made, and how BLEU cut them into words."""
        return [
            f"Translations are decoded greedily, up to {self.max_target_length} tokens. BLEU is sacrebleu's with its "
            "tokenizer 13a, which knows no words of scripts without spaces; chrF needs none."
        ]

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the decoder's head is as large as the vocabulary."""
        return {}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield pairs; rows that are blank on both sides are left out."""
        roles = ("text", "text_pair") if self.labelled else ("text",)
        for row in rows:
            values = {role: self.text_of(row, role) for role in roles}
            blank = [role for role, text in values.items() if not text.strip()]
            if len(blank) == len(roles):
                continue
            if blank:
                raise DataError(
                    f"{row.where}: column {self.dataset.columns[blank[0]]!r} must hold the translation of the other "
                    "text, got blank text. Mend or remove the row."
                )
            yield Example(id=row.id, values=values, where=row.where, language=row.language)

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise both texts."""
        sources = self.tokenizer.encode_batch([item.values["text"] for item in examples], max_length=self.max_length)
        references = [item.values.get("text_pair", "") for item in examples]
        targets: list[list[int]] = [[] for _ in examples]
        if self.labelled:
            encoded = self.tokenizer.encode_batch(references, max_length=self.max_target_length)
            targets = [ids[1:] for ids in encoded]  # <s> is read and never predicted
        return [
            [Feature(example=0, input_ids=[*source, *target], columns=_columns(len(source), reference))]
            for source, target, reference in zip(sources, targets, references, strict=True)
        ]

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack sources and translations, each translation at the place of its source."""
        pad, start = self.tokenizer.pad_token_id, self.tokenizer.bos_token_id
        cuts = [feature.columns["source_length"] or len(feature.input_ids) for feature in features]
        sources = [feature.input_ids[:cut] for feature, cut in zip(features, cuts, strict=True)]
        labels = [
            list(feature.input_ids[cut:]) or [IGNORED]  # none of a feature without a target
            for feature, cut in zip(features, cuts, strict=True)
        ]
        input_ids, position_ids = pack(sources, pad)
        decoder_input_ids, decoder_position_ids = pack([[start, *ids[:-1]] for ids in labels], pad)
        sequences = PackedSequences.from_lengths([len(ids) for ids in sources])
        packed_labels = torch.tensor([label for ids in labels for label in ids])
        rows = packed_labels.ne(IGNORED).nonzero().squeeze(1)
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": sequences,
                "decoder_input_ids": decoder_input_ids,
                "decoder_position_ids": decoder_position_ids,
                "decoder_sequences": PackedSequences.from_lengths([len(ids) for ids in labels], like=sequences),
                "labels": packed_labels,
                "rows": rows,
            },
            examples=examples,
            num_tokens=sum(len(feature.input_ids) for feature in features),
            num_targets=float(len(rows)),
        )

    def no_target(self) -> dict[str, Any]:
        """Return the columns of a feature that is all source."""
        return _columns(0, "")

    def prediction_inputs(self, inputs: dict[str, Any], any_rank: Callable[[bool], bool]) -> dict[str, Any]:
        """Ask for translations: the model sees no target."""
        given = {name: inputs[name] for name in ("input_ids", "position_ids", "sequences")}
        return given | {
            "generate": True,
            "max_new_tokens": self.max_target_length - 1,
            "num_tokens": len(self.tokenizer),  # a vocabulary may have rows that no token has
            "any_rank": any_rank,
        }

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return translations as text."""
        assert output.generated_ids is not None
        end = self.tokenizer.eos_token_id
        written = [ids[: ids.index(end)] if end in ids else ids for ids in output.generated_ids.tolist()]
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        sources = self.tokenizer.batch_decode(
            [feature.input_ids[: feature.columns["source_length"]] for feature in features], skip_special_tokens=True
        )
        return [
            Prediction(
                table=table,
                example=example,
                prediction=text,
                reference=feature.columns["reference"] if self.labelled else None,
                details={"source": source},
            )
            for (table, example), feature, source, text in zip(batch.examples, features, sources, texts, strict=True)
        ]


def _columns(source_length: int, reference: str) -> dict[str, Any]:
    return {"source_length": source_length, "reference": reference}
