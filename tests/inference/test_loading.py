"""Models spread over memory and disk: same outputs, small limits, and what cannot be spread is named."""

from pathlib import Path

import pytest
import torch

from tests.model.reference import HEADS, configuration_of, our_class, padded_batch, randomize
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.inference.loading import to_device
from xlmrxl_train.model import PackedSequences, PreTrained, XLMRobertaXLForMaskedLM
from xlmrxl_train.model.attention import make_layout
from xlmrxl_train.model.encoder import LayerContext

GPUS = torch.cuda.device_count()


def save(head: str, folder: Path, **overrides: object) -> Path:
    torch.manual_seed(0)
    model = our_class(head)(configuration_of(head, **overrides))
    randomize(model)
    model.save_pretrained(folder, max_shard_bytes=50_000)
    return folder


def same_outputs(head: str, first: PreTrained, second: PreTrained) -> None:
    ids, mask = padded_batch([9, 4, 9])
    if head == "MultipleChoice":
        ids, mask = torch.stack([ids, ids.flip(0)], 1), torch.stack([mask, mask.flip(0)], 1)
    with torch.no_grad():
        places = ("cpu" if model.device.type == "meta" else model.device for model in (first, second))
        left, right = (
            model(ids.to(place), mask.to(place)) for model, place in zip((first, second), places, strict=True)
        )
    for name in ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output"):
        if name in left:
            torch.testing.assert_close(right[name].cpu(), left[name].cpu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["", *HEADS])
def test_memory_for_a_part_of_it(head: str, tmp_path: Path) -> None:
    folder, cls = save(head, tmp_path, num_hidden_layers=8), our_class(head)
    whole = cls.from_pretrained(folder)
    size = sum(parameter.nbytes for parameter in whole.parameters())
    spread = cls.from_pretrained(folder, device_map="auto", max_memory={"cpu": size // 2})
    on_disk = {name for name, parameter in spread.named_parameters() if parameter.device.type == "meta"}
    held = sum(parameter.nbytes for parameter in spread.parameters() if parameter.device.type != "meta")
    assert on_disk and 0 < held <= size // 2 and spread.device.type == "cpu"
    same_outputs(head, whole, spread)
    assert {name for name, parameter in spread.named_parameters() if parameter.device.type == "meta"} == on_disk
    nothing = cls.from_pretrained(folder, device_map="auto", max_memory={"cpu": 1})
    assert all(parameter.device.type == "meta" for parameter in nothing.parameters())
    same_outputs(head, whole, nothing)


def test_all_of_it_and_another_dtype(tmp_path: Path) -> None:
    folder = save("MaskedLM", tmp_path)
    whole = XLMRobertaXLForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16)
    for limits in (None, {"cpu": "1GB"}, {"cpu": 1}):
        spread = XLMRobertaXLForMaskedLM.from_pretrained(
            folder, device_map="auto", max_memory=limits, dtype=torch.bfloat16
        )
        same_outputs("MaskedLM", whole, spread)
    by_hand = {"roberta.embeddings": "cpu", "roberta.encoder": "disk", "lm_head": "disk"}
    spread = XLMRobertaXLForMaskedLM.from_pretrained(folder, device_map=by_hand, dtype=torch.bfloat16)
    assert spread.lm_head.decoder.weight is spread.roberta.embeddings.word_embeddings.weight
    same_outputs("MaskedLM", whole, spread)


def test_wrong_maps_are_named(tmp_path: Path) -> None:
    folder, cls = save("MaskedLM", tmp_path / "m"), XLMRobertaXLForMaskedLM
    with pytest.raises(ConfigError, match=r"device_map must be 'auto' or map modules to places, got 'cuda'\."):
        cls.from_pretrained(folder, device_map="cuda")
    with pytest.raises(ConfigError, match=r"device must be None with device_map, which says it, got cpu\. Leave one"):
        cls.from_pretrained(folder, device_map="auto", device="cpu")
    with pytest.raises(ConfigError, match=r"device_map must name a place for every module: .* Use device_map='auto'\."):
        cls.from_pretrained(folder, device_map={"lm_head": "cpu"})
    there = r"cpu, disk or the number of a GPU, got {} for {}; here is .*\. Mend device_map, or take out of max_memory"
    for place, module in ((GPUS, "the model"), ("moon", "the model")):
        with pytest.raises(ConfigError, match=there.format(repr(place), module)):
            cls.from_pretrained(folder, device_map={"": place})
    with pytest.raises(
        ConfigError, match=r"max_memory must map GPU numbers, 'cpu' and 'disk' to bytes or sizes as '20"
    ):
        cls.from_pretrained(folder, device_map="auto", max_memory={"cpu": "much"})
    with pytest.raises(
        ConfigError, match=r"device_map is for models whose weights are all stored, got none of classif"
    ):
        our_class("SequenceClassification").from_pretrained(folder, device_map="auto")
    torch.save({name: tensor.detach() for name, tensor in cls.from_pretrained(folder).named_parameters()},
               tmp_path / "pytorch_model.bin")  # fmt: skip
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"can leave weights on disk in safetensors alone, got .*pytorch_model\.bin"):
        cls.from_pretrained(tmp_path, device_map="auto", max_memory={"cpu": 1})
    same_outputs("MaskedLM", cls.from_pretrained(folder), cls.from_pretrained(tmp_path, device_map="auto"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_quantized_weights_are_not_spread(tmp_path: Path) -> None:
    from xlmrxl_train.model import QuantizationConfig

    folder, cls, config = save("", tmp_path), our_class(""), QuantizationConfig()
    with pytest.raises(ConfigError, match=r"device_map must be None for quantized weights, which are small\. Use dev"):
        cls.from_pretrained(folder, device_map={"": "cpu"}, quantization_config=config)
    whole = cls.from_pretrained(folder, device_map="auto", quantization_config=config)
    assert {parameter.device.type for parameter in whole.parameters()} == {"cuda" if GPUS else "cpu"}


def test_the_plan_of_attention_goes_along() -> None:
    """The part of spreading over several GPUs that can be seen without them."""
    sequences = PackedSequences.from_lengths([4, 2])
    layout = make_layout("sdpa", sequences)
    context = LayerContext(layout=layout, first_layout=layout, attentions=[], encoder_states_SD=torch.zeros(2, 3))
    moved = context.to(torch.device("meta"))
    for part in (moved.layout, moved.first_layout):
        assert part is not None and part.keys is part.queries
        assert part.queries.offsets.device.type == "meta" and part.queries.lengths == (4, 2)
        assert {bias.device.type for bias in part.biases if bias is not None} == {"meta"}
    assert moved.attentions is context.attentions and moved.cross_layout is None
    assert moved.encoder_states_SD is not None and moved.encoder_states_SD.device.type == "meta"
    values = to_device((torch.zeros(2), (torch.zeros(1), None)), torch.device("meta"))
    assert values[0].device.type == values[1][0].device.type == "meta" and values[1][1] is None


@pytest.mark.skipif(GPUS < 1, reason="needs a GPU")
@pytest.mark.parametrize("head", ["", *HEADS])
def test_gpus_memory_and_disk(head: str, tmp_path: Path) -> None:
    """Limits so small that the first GPU holds a part only."""
    folder, cls = save(head, tmp_path, num_hidden_layers=4), our_class(head)
    whole = cls.from_pretrained(folder)
    size = sum(parameter.nbytes for parameter in whole.parameters())
    # accelerate keeps room for the largest module on the first GPU.
    limits = {**dict.fromkeys(range(min(GPUS, 2)), size * 2 // 3), "cpu": size // 6}
    spread = cls.from_pretrained(folder, device_map="auto", max_memory=limits)
    assert {parameter.device.type for parameter in spread.parameters()} >= {"cuda", "meta"}
    same_outputs(head, whole, spread)
