"""Pipelines, precisions and quantized weights on a GPU, against float32 on the CPU."""

from pathlib import Path

import pytest
import torch

from tests.gpu import needs_gpu
from tests.inference.folders import saved
from tests.model.reference import our_class, padded_batch
from xlmrxl_train import pipeline
from xlmrxl_train.inference.opening import load_model
from xlmrxl_train.model import ModelOutput, QuantizationConfig

pytestmark = [needs_gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]
TEXTS = ["hello <mask> how are you", "<mask>, thanks!", "hello world how are you fine thanks <mask>"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_fill_mask(dtype: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "MaskedLM")
    on_cpu, on_gpu = (pipeline("fill-mask", folder, device=place, dtype=kind)(TEXTS, top_k=5)
                      for place, kind in ((-1, "float32"), (0, dtype)))  # fmt: skip
    allowed = 1e-4 if dtype == "float32" else 2e-2
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=allowed)
        if dtype == "float32":
            assert [entry["token"] for entry in one] == [entry["token"] for entry in other]


@pytest.mark.parametrize("head", ["MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantized_weights_compute_as_on_a_cpu(weights: str, head: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "plain", head, hidden_size=256, intermediate_size=512)
    config = QuantizationConfig(weights=weights, group_size=32)
    our_class(head).from_pretrained(folder, quantization_config=config).save_pretrained(tmp_path / "small")
    ids, mask = padded_batch([9, 4, 30])
    ids = ids % 30
    with torch.no_grad():
        exact = outputs(our_class(head).from_pretrained(folder).eval()(ids, mask))
        places = (torch.device("cpu"), torch.device("cuda"))
        on_cpu, on_gpu = (
            outputs(
                load_model(our_class(head), tmp_path / "small", dtype=None, device=place, revision=None)(
                    ids.to(place), mask.to(place)
                )
            )
            for place in places
        )
    rounding = (on_cpu - exact).norm()
    assert (on_gpu - on_cpu).norm() < 0.3 * rounding + 1e-2 * exact.norm()


def outputs(output: ModelOutput) -> torch.Tensor:
    return torch.cat([one.float().cpu().flatten() for one in output.to_tuple() if isinstance(one, torch.Tensor)])
