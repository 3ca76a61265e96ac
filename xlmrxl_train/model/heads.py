"""The modules that stand on the encoder: vocabulary, sentence, choice and token heads.

Suffixes: M rows, D features, V vocabulary, B sequences, C classes.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.layers import Dropout, LayerNorm, Linear, matmul_dtype
from xlmrxl_train.model.losses import chunked_cross_entropy


class VocabularyProjection(Linear):
    """Logits over the vocabulary, or straight the losses.

    The loss is computed inside the module that owns the weight, because engines that shard weights gather them for
    the time of their module's forward and backward.
    """

    def forward(self, input: Tensor, labels_M: Tensor | None = None) -> Tensor:
        """Return logits [M, V], or with labels each row's cross-entropy [M] in float32."""
        if labels_M is None:
            return super().forward(input)
        return chunked_cross_entropy(input, self.weight, self.bias, labels_M, matmul_dtype(self, input))


class LMHead(nn.Module):
    """Dense, GELU, layer norm, vocabulary."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.dense: nn.Module = Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = VocabularyProjection(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder.bias = self.bias

    def forward(self, hidden_MD: Tensor, labels_M: Tensor | None = None) -> Tensor:
        """Return logits [M, V], or with labels each row's loss [M]."""
        features_MD = self.layer_norm(functional.gelu(self.dense(hidden_MD)))
        return cast(Tensor, self.decoder(features_MD, labels_M))


class ClassificationHead(nn.Module):
    """Dropout, dense, tanh, dropout, classes."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.dense: nn.Module = Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(head_dropout(config))
        self.out_proj: nn.Module = Linear(config.hidden_size, config.num_labels)

    def forward(self, first_BD: Tensor) -> Tensor:
        """Return logits [B, C]."""
        features_BD = torch.tanh(self.dense(self.dropout(first_BD)))
        return cast(Tensor, self.out_proj(self.dropout(features_BD)))


def head_dropout(config: XLMRobertaXLConfig) -> float:
    """Return the dropout of classification heads."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
