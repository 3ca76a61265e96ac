"""Memory never holds all logits: the real vocabulary, a tiny width, more rows than a chunk has room for."""

import pytest
import torch

from xlmrxl_train.model import PackedSequences, XLMRobertaXLConfig, losses
from xlmrxl_train.model.language_models import XLMRobertaXLForCausalLM, XLMRobertaXLForMaskedLM
from xlmrxl_train.plan.live import LiveTensors

VOCABULARY, TARGETS = 250_880, 256
LOGITS = VOCABULARY * TARGETS  # 64 million, 257 MB in float32
CHUNK = 2**22  # 4 million, for speed; ours are larger and no more dependent on the number of targets


@pytest.mark.parametrize("kind", [XLMRobertaXLForMaskedLM, XLMRobertaXLForCausalLM])
@pytest.mark.parametrize("training", [True, False])
def test_no_tensor_holds_all_logits(kind: type, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert losses._CHUNK_ELEMENTS <= 2**26
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", CHUNK)
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(
        vocab_size=VOCABULARY, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        is_decoder=kind is XLMRobertaXLForCausalLM,
    )  # fmt: skip
    model = kind(config).train(training)
    lengths = (65,) * 4  # a causal model predicts 64 tokens of each
    ids = torch.randint(5, VOCABULARY, (sum(lengths),))
    labels = ids.clone()
    if kind is XLMRobertaXLForMaskedLM:
        labels[TARGETS:] = -100
    inputs = {
        "input_ids": ids,
        "position_ids": torch.arange(2, 67).repeat(4),
        "sequences": PackedSequences.from_lengths(lengths),
    }
    with torch.set_grad_enabled(training), LiveTensors() as tensors:
        output = model(**inputs, labels=labels)
        if training:
            output.loss_sum.backward()
    assert output.num_targets == TARGETS and output.logits is None
    assert tensors.largest <= CHUNK < LOGITS / 15
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert tensors.peak < 4 * 4 * CHUNK + 2 * weights < 4 * LOGITS / 3
    with torch.no_grad():
        rows = torch.arange(40)
        direct = model(**inputs, rows=rows).logits
        targets = output.target_losses[:40]
        expected = torch.nn.functional.cross_entropy(
            direct, ids[1:41] if kind is XLMRobertaXLForCausalLM else ids[:40], reduction="none"
        )
        if not training:  # with dropout they differ
            torch.testing.assert_close(targets, expected, rtol=1e-5, atol=1e-5)
