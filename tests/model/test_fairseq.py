"""Conversion of fairseq's names, on a small file written as fairseq writes it."""

import argparse
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.model.reference import configuration, randomize
from tests.model.test_weights import Malicious
from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.model import (
    PreTrained,
    XLMRobertaXLForMaskedLM,
    XLMRobertaXLForSequenceClassification,
    convert_fairseq,
)

FAIRSEQ = {
    r"roberta\.embeddings\.word_embeddings": "encoder.sentence_encoder.embed_tokens",
    r"roberta\.embeddings\.position_embeddings": "encoder.sentence_encoder.embed_positions",
    r"roberta\.encoder\.LayerNorm": "encoder.sentence_encoder.layer_norm",
    r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.query": r"encoder.sentence_encoder.layers.\1.self_attn.q_proj",
    r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.key": r"encoder.sentence_encoder.layers.\1.self_attn.k_proj",
    r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.value": r"encoder.sentence_encoder.layers.\1.self_attn.v_proj",
    r"roberta\.encoder\.layer\.(\d+)\.attention\.output\.dense": (
        r"encoder.sentence_encoder.layers.\1.self_attn.out_proj"
    ),
    r"roberta\.encoder\.layer\.(\d+)\.attention\.self_attn_layer_norm": (
        r"encoder.sentence_encoder.layers.\1.self_attn_layer_norm"
    ),
    r"roberta\.encoder\.layer\.(\d+)\.intermediate\.dense": r"encoder.sentence_encoder.layers.\1.fc1",
    r"roberta\.encoder\.layer\.(\d+)\.output\.dense": r"encoder.sentence_encoder.layers.\1.fc2",
    r"roberta\.encoder\.layer\.(\d+)\.LayerNorm": r"encoder.sentence_encoder.layers.\1.final_layer_norm",
    r"lm_head\.decoder": "encoder.lm_head",
    r"lm_head": "encoder.lm_head",
    r"classifier": "classification_heads.mnli",
}
ARGUMENTS = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_embed_dim": 64, "arch": "xlmr_xl"}


def as_fairseq(model: PreTrained) -> dict[str, Tensor]:
    state = {"encoder.sentence_encoder.version": torch.ones(1)}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in FAIRSEQ.items():
            renamed, count = re.subn(f"^{pattern}(?=\\.)", replacement, name)
            if count:
                state[renamed] = tensor
                break
    return state


def model_of(cls: type[PreTrained]) -> PreTrained:
    torch.manual_seed(0)
    model = cls(configuration()).eval()
    randomize(model)
    model.get_parameter("roberta.embeddings.token_type_embeddings.weight").data.zero_()
    return model


@pytest.mark.parametrize("options", ["args", "cfg"])
def test_masked_language_model(options: str, tmp_path: Path) -> None:
    model = model_of(XLMRobertaXLForMaskedLM)
    namespace = argparse.Namespace(**ARGUMENTS)
    extra = {"args": namespace} if options == "args" else {"args": None, "cfg": {"model": namespace}}
    torch.save({"model": as_fairseq(model), **extra}, tmp_path / "model.pt")
    convert_fairseq(tmp_path / "model.pt", tmp_path / "hub")
    loaded = XLMRobertaXLForMaskedLM.from_pretrained(tmp_path / "hub")
    ids = torch.randint(3, 97, (2, 9))
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    import transformers

    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hub").eval()
    assert (theirs(ids).logits - model(ids).logits).abs().max() < 1e-5


def test_classification_head(tmp_path: Path) -> None:
    model = model_of(XLMRobertaXLForSequenceClassification)
    file = tmp_path / "model.pt"
    torch.save({"model": as_fairseq(model), "args": argparse.Namespace(**ARGUMENTS)}, file)
    convert_fairseq(file, tmp_path / "hub", classification_head="mnli")
    loaded = XLMRobertaXLForSequenceClassification.from_pretrained(tmp_path / "hub")
    ids = torch.randint(3, 97, (2, 9))
    assert torch.equal(loaded(ids).logits, model(ids).logits) and loaded.config.num_labels == 3
    with pytest.raises(CheckpointError, match='must hold the classification head "xnli", got none'):
        convert_fairseq(file, tmp_path / "hub", classification_head="xnli")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}, "args": Malicious()}, "got a pickle that would run code"),
        ({"weights": {}}, 'must be a fairseq checkpoint, got a file without "model".'),
        ({"model": {"encoder.odd": torch.ones(1)}}, "must hold XLM-R XL's or XXL's tensors only, got also encoder.odd"),
        (
            {"model": {}, "args": None},
            'must name encoder_layers, encoder_attention_heads, encoder_ffn_embed_dim in "args"',
        ),
        (
            {"model": {}, "args": argparse.Namespace(**ARGUMENTS)},
            "must hold the word and position embeddings, got none.",
        ),
    ],
)
def test_messages(content: dict[str, object], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError) as error:
        convert_fairseq(tmp_path / "model.pt", tmp_path / "hub")
    assert message in str(error.value) and str(tmp_path / "model.pt") in str(error.value)
    assert not (tmp_path / "hub").exists() and not Path("/tmp/xlmrxl-was-here").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt does not exist"):
        convert_fairseq(tmp_path / "model.pt", tmp_path / "hub")
