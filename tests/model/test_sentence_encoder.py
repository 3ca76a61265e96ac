"""Pooled states of a layer are the Hub's hidden_states, pooled."""

import pytest
import torch

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLModel, XLMRobertaXLSentenceEncoder

IDS = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
MASK = IDS.ne(1).long()


@pytest.fixture
def encoder() -> XLMRobertaXLSentenceEncoder:
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    return XLMRobertaXLSentenceEncoder(config).eval()


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 0.7, None])
@pytest.mark.parametrize("pooling", ["mean", "first"])
@torch.no_grad()
def test_vectors_are_pooled_hidden_states(encoder, layer, pooling) -> None:
    vectors = encoder(IDS, attention_mask=MASK, layer=layer, pooling=pooling).pooler_output
    states = encoder.roberta(IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[
        {None: -1, 0.7: 2}.get(layer, layer)
    ]
    mean = (states * MASK[:, :, None]).sum(1) / MASK.sum(1, keepdim=True)
    assert torch.allclose(vectors, mean if pooling == "mean" else states[:, 0], atol=1e-6)


def test_later_layers_are_not_computed(encoder, monkeypatch) -> None:
    encoder.roberta.encoder.layer[1].forward = None  # type: ignore[assignment]
    encoder(IDS, attention_mask=MASK, layer=1)
    with pytest.raises(TypeError):
        encoder(IDS, attention_mask=MASK, layer=2)


def test_a_layer_or_pooling_that_is_none(encoder) -> None:
    with pytest.raises(ConfigError, match=r"layer must be from 0 to 3, the model's layers, got 4\. Choose another\."):
        encoder(IDS, layer=4)
    with pytest.raises(ConfigError, match=r"pooling must be mean \| first, got 'max'\."):
        encoder(IDS, pooling="max")


def test_weights_of_a_task_load_into_it(encoder, tmp_path) -> None:
    bare = XLMRobertaXLModel(encoder.config)
    bare.save_pretrained(tmp_path)
    loaded = XLMRobertaXLSentenceEncoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.roberta.embeddings.word_embeddings.weight, bare.embeddings.word_embeddings.weight)
