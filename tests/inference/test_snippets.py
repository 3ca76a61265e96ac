"""What the Hub's page of XLM-RoBERTa-XL shows, with our names and local weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.inference.folders import saved

PIPELINE = """
import torch
from xlmrxl_train import pipeline

pipeline = pipeline(task="fill-mask", model="facebook/xlm-roberta-xl", dtype=torch.float16, device=-1)
pipeline("Bonjour, je suis un modèle <mask>.")
"""
AUTOMODEL = """
import torch
from xlmrxl_train import Tokenizer
from xlmrxl_train.model import XLMRobertaXLForMaskedLM

tokenizer = Tokenizer.from_pretrained("facebook/xlm-roberta-xl")
model = XLMRobertaXLForMaskedLM.from_pretrained(
    "facebook/xlm-roberta-xl", dtype=torch.float16, attn_implementation="sdpa"
).to("cpu")
inputs = tokenizer("Bonjour, je suis un modèle <mask>.", return_tensors="pt").to("cpu")

with torch.no_grad():
    outputs = model(**inputs)
    predictions = outputs.logits

masked_index = torch.where(inputs["input_ids"] == tokenizer.mask_token_id)[1]
predicted_token_id = predictions[0, masked_index].argmax(dim=-1)
predicted_token = tokenizer.decode(predicted_token_id)

print(f"The predicted token is: {predicted_token}")
"""

QUANTIZED = """
import torch
from xlmrxl_train import Tokenizer
from xlmrxl_train.model import QuantizationConfig, XLMRobertaXLForMaskedLM

quantization_config = QuantizationConfig(weights="int4", group_size=32)
tokenizer = Tokenizer.from_pretrained("facebook/xlm-roberta-xl")
model = XLMRobertaXLForMaskedLM.from_pretrained(
    "facebook/xlm-roberta-xl",
    dtype=torch.bfloat16,
    device_map="auto",
    attn_implementation="sdpa",
    quantization_config=quantization_config,
)
inputs = tokenizer("Bonjour, je suis un modèle <mask>.", return_tensors="pt").to(model.device)

with torch.no_grad():
    predictions = model(**inputs).logits

masked_index = torch.where(inputs["input_ids"] == tokenizer.mask_token_id)[1]
print(tokenizer.decode(predictions[0, masked_index].argmax(dim=-1)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What stands for the Hub's weights."""
    return saved(tmp_path, "MaskedLM")


def test_pipeline(folder: Path) -> None:
    exec(PIPELINE.replace("facebook/xlm-roberta-xl", str(folder)), {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_quantized(tmp_path: Path) -> None:
    saved(tmp_path, "MaskedLM", hidden_size=64, intermediate_size=128)
    names: dict[str, Any] = {}
    exec(QUANTIZED.replace("facebook/xlm-roberta-xl", str(tmp_path)), names)
    assert names["model"].quantization.weights == "int4" and names["predictions"].isfinite().all()


def test_automodel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(AUTOMODEL.replace("facebook/xlm-roberta-xl", str(folder)), {})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer("Bonjour, je suis un modèle <mask>.", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    place = torch.where(inputs["input_ids"] == tokenizer.mask_token_id)[1]
    wanted = tokenizer.decode(logits[0, place].argmax(-1))
    assert capsys.readouterr().out == f"The predicted token is: {wanted}\n"
