"""Vectors from a layer of choice: of every token (feature-extraction), of a whole sentence (sentence-embeddings)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from xlmrxl_train.inference.base import Options, Pipeline, at_least, one_of, yes_or_no
from xlmrxl_train.inference.streaming import Work
from xlmrxl_train.model import PreTrained, XLMRobertaXLSentenceEncoder
from xlmrxl_train.model.sentence_encoder import POOLINGS, number_of_layer


@dataclass(kw_only=True, frozen=True)
class VectorOptions(Options):
    """Options of what returns vectors."""

    layer: int | float | None = None
    """0: the embeddings; k: what layer k puts out; 0.5: of the layer half way up; None: the last one's, after the final
    layer norm."""
    return_tensors: bool = False
    """Whether to return a torch.Tensor on the CPU in place of lists of numbers."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        return [
            *super().faults(),
            *([] if isinstance(self.layer, float) else at_least("layer", self.layer, 0, or_none=True)),
            *yes_or_no("return_tensors", self.return_tensors),
        ]


@dataclass(kw_only=True, frozen=True)
class FeatureOptions(VectorOptions):
    """Options of feature-extraction."""

    window: int = 256
    """As above, but fewer: of XL a text of 30 tokens has 2.5 MB of numbers in lists."""


@dataclass(kw_only=True, frozen=True)
class SentenceOptions(VectorOptions):
    """Options of sentence-embeddings."""

    pooling: str = "mean"
    """mean: over all tokens, special ones included; first: of <s>."""
    normalize: bool = False
    """Whether to scale each vector to length 1, so that products are cosines."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        faults = super().faults() + one_of("pooling", self.pooling, POOLINGS)
        return faults + yes_or_no("normalize", self.normalize)


class FeatureExtraction(Pipeline):
    """Returns [1, tokens, features] for each text, as the Hub has it."""

    task: ClassVar[str] = "feature-extraction"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLSentenceEncoder
    options_class: ClassVar[type[Options]] = FeatureOptions

    def compute(self, works: Sequence[Work], options: VectorOptions) -> Sequence[Any]:
        """Run the encoder up to the layer."""
        layer = number_of_layer(self.model.config, options.layer)
        encoder = self.model.get_submodule("roberta")
        states = self.run([work.content for work in works], part=encoder, num_layers=layer).last_hidden_state
        assert states is not None
        vectors = self.finite(states).cpu().split([len(work.content) for work in works])
        return [vector[None].clone() if options.return_tensors else [vector.tolist()] for vector in vectors]


class SentenceEmbeddings(Pipeline):
    """Returns one vector for each text."""

    task: ClassVar[str] = "sentence-embeddings"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLSentenceEncoder
    options_class: ClassVar[type[Options]] = SentenceOptions

    def compute(self, works: Sequence[Work], options: SentenceOptions) -> Sequence[Any]:
        """Run the encoder up to the layer and pool its states."""
        sequences = [work.content for work in works]
        vectors = self.run(sequences, layer=options.layer, pooling=options.pooling).pooler_output
        assert vectors is not None
        vectors = self.finite(vectors).cpu()
        if options.normalize:
            vectors = torch.nn.functional.normalize(vectors)
        return [vector.clone() for vector in vectors] if options.return_tensors else vectors.tolist()
