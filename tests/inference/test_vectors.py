"""feature-extraction against transformers' pipeline, sentence-embeddings against its hidden states."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tests.inference.folders import saved
from xlmrxl_train import pipeline
from xlmrxl_train.errors import ConfigError

TEXTS = ["hello world", "are you fine, thanks?", "how", "hello " * 20]


def test_features_are_those_of_transformers(tmp_path: Path) -> None:
    folder = saved(tmp_path, "")
    mine = pipeline("feature-extraction", folder, device=-1, tokens_per_batch=30)
    theirs = transformers.pipeline("feature-extraction", model=str(folder), device=-1)
    for one, other in zip(mine(TEXTS), theirs(TEXTS), strict=True):
        assert np.abs(np.array(one) - np.array(other)).max() < 1e-4
    assert mine(TEXTS[0]) == [mine(TEXTS)[0][0]]
    read: list[str] = []
    next(mine(read.append(text) or text for text in TEXTS * 100))  # type: ignore[func-returns-value]
    assert len(read) == 256  # and not the 2048 of others: XL's vectors of so many texts are gigabytes
    tensor = mine(TEXTS[0], return_tensors=True)
    assert tensor.tolist() == mine(TEXTS[0])
    assert (mine(TEXTS[0], layer=2, return_tensors=True) == tensor).all()
    assert mine(TEXTS[0], layer=0.5) == mine(TEXTS[0], layer=1) != mine(TEXTS[0])
    with pytest.raises(ConfigError, match="layer must be from 0 to 2, the model's layers, got 3"):
        mine(TEXTS[0], layer=3)
    for share in (1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"layer must be a share from 0\.0 to 1\.0, or a layer's number, got"):
            mine(TEXTS[0], layer=share)


@pytest.mark.parametrize("layer", [0, 1, None])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_sentences_are_pooled_from_a_layer(layer: int | None, pooling: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "MaskedLM")  # any head's encoder serves
    pipe = pipeline("sentence-embeddings", folder, device=-1, layer=layer, pooling=pooling)
    theirs = transformers.XLMRobertaXLModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = theirs(**pipe.tokenizer(TEXTS[1], return_tensors="pt"), output_hidden_states=True).hidden_states
    wanted = states[-1 if layer is None else layer][0]
    wanted = wanted.mean(0) if pooling == "mean" else wanted[0]
    assert torch.tensor(pipe(TEXTS)[1]) == pytest.approx(wanted, abs=1e-4)
    unit = pipe(TEXTS, normalize=True, return_tensors=True)[1]
    assert unit == pytest.approx(wanted / wanted.norm(), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, r"pooling must be mean \| first, got 'max'\. Choose one of them\."),
        ({"normalize": "no"}, "normalize must be true or false, got 'no'"),
        ({"layer": -1}, "layer must be an integer of at least 0, got -1"),
        ({"return_tensors": "pt"}, "return_tensors must be true or false, got 'pt'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline("sentence-embeddings", saved(tmp_path, ""), **options)
