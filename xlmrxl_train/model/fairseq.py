"""Convert fairseq's released `model.pt` to the Hub's layout.

Source: transformers 4.x, models/xlm_roberta_xl/convert_xlm_roberta_xl_original_pytorch_checkpoint_to_pytorch.py.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.weights import load_restricted
from xlmrxl_train.model.writing import DEFAULT_SHARD_BYTES, TensorEntry, write_checkpoint

_IN_LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.self_attn_layer_norm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}
_ELSEWHERE = {
    "sentence_encoder.embed_tokens.weight": "roberta.embeddings.word_embeddings.weight",
    "sentence_encoder.embed_positions.weight": "roberta.embeddings.position_embeddings.weight",
    "sentence_encoder.layer_norm.weight": "roberta.encoder.LayerNorm.weight",
    "sentence_encoder.layer_norm.bias": "roberta.encoder.LayerNorm.bias",
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
    "lm_head.bias": "lm_head.bias",
    "lm_head.weight": "lm_head.decoder.weight",
}
_LAYER = re.compile(r"sentence_encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_HEAD = re.compile(r"classification_heads\.([^.]+)\.((?:dense|out_proj)\.(?:weight|bias))")


def hub_name(name: str, classification_head: str | None = None) -> str | None:
    """Translate one of fairseq's names.

    Args:
        name: Of a tensor in fairseq's state dict.
        classification_head: Which of its sentence heads is wanted.

    Returns:
        The Hub's name; None for what the Hub's model does not hold (a version counter, other heads).

    Raises:
        KeyError: The name is not one of this architecture.
    """
    short = re.sub(r"^(encoder|decoder)\.", "", name)
    head = _HEAD.fullmatch(short)
    if head is not None:
        return f"classifier.{head[2]}" if head[1] == classification_head else None
    if short == "sentence_encoder.version":
        return None
    layer = _LAYER.fullmatch(short)
    if layer is not None:
        return f"roberta.encoder.layer.{layer[1]}.{_IN_LAYER[layer[2]]}.{layer[3]}"
    return _ELSEWHERE[short]


def convert_fairseq(
    pt_file: str | Path,
    output_folder: str | Path,
    *,
    classification_head: str | None = None,
    max_shard_bytes: float = DEFAULT_SHARD_BYTES,
) -> None:
    """Write config.json and safetensors from a fairseq checkpoint. Nothing that is pickled in it is executed.

    Args:
        pt_file: fairseq's model.pt, with `model` and `args` (or `cfg`).
        output_folder: Made if missing.
        classification_head: Name of a sentence head to convert instead of the masked-LM head.
        max_shard_bytes: As `save_pretrained`'s.

    Raises:
        CheckpointError: Not such a file, a pickle with code, or tensors of another architecture (all are listed).
    """
    path = Path(pt_file)
    content = load_restricted(path, allowed=(argparse.Namespace,))
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise CheckpointError(f'{path} must be a fairseq checkpoint, got a file without "model". Check the path.')
    tensors: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in content["model"].items():
        try:
            translated = hub_name(name, classification_head)
        except KeyError:
            unknown.append(name)
            continue
        if translated is not None:
            tensors[translated] = tensor
    if unknown:
        raise CheckpointError(
            f"{path} must hold XLM-R XL's or XXL's tensors only, got also {', '.join(unknown)}. "
            "Other architectures (XLM-R base and large) have other layers."
        )
    if classification_head is not None:
        if "classifier.out_proj.weight" not in tensors:
            raise CheckpointError(
                f'{path} must hold the classification head "{classification_head}", got none. Leave the option out.'
            )
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head.")}
    _write(path, content, tensors, Path(output_folder), max_shard_bytes)


def _write(
    path: Path, content: Mapping[str, object], tensors: dict[str, Tensor], folder: Path, max_shard_bytes: float
) -> None:
    options = _options(path, content)
    words = tensors.get("roberta.embeddings.word_embeddings.weight")
    positions = tensors.get("roberta.embeddings.position_embeddings.weight")
    if words is None or positions is None:
        raise CheckpointError(f"{path} must hold the word and position embeddings, got none. Check the path.")
    decoder = tensors.get("lm_head.decoder.weight")
    tied = decoder is None or torch.equal(decoder, words)
    if tied:
        tensors.pop("lm_head.decoder.weight", None)
    # fairseq has no token types; the Hub's model adds a row of zeros.
    tensors["roberta.embeddings.token_type_embeddings.weight"] = words.new_zeros(1, words.shape[1])
    is_classifier = "classifier.out_proj.weight" in tensors
    config = XLMRobertaXLConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=options["encoder_layers"],
        num_attention_heads=options["encoder_attention_heads"],
        intermediate_size=options["encoder_ffn_embed_dim"],
        max_position_embeddings=positions.shape[0],
        num_labels=tensors["classifier.out_proj.weight"].shape[0] if is_classifier else 2,
        tie_word_embeddings=tied,
    )
    values = config.to_dict(f"XLMRobertaXLFor{'SequenceClassification' if is_classifier else 'MaskedLM'}")
    values["dtype"] = str(words.dtype).removeprefix("torch.")
    entries = [
        TensorEntry(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape), read=lambda tensor=tensor: tensor)  # type: ignore[misc]
        for name, tensor in tensors.items()
    ]
    write_checkpoint(folder, values, entries, max_shard_bytes)


def _options(path: Path, content: Mapping[str, object]) -> dict[str, int]:
    """Read the sizes that no tensor's shape tells."""
    found: object = content.get("args")
    if found is None and isinstance(cfg := content.get("cfg"), Mapping):
        found = cfg.get("model")
    values = vars(found) if isinstance(found, argparse.Namespace) else found
    wanted = ("encoder_layers", "encoder_attention_heads", "encoder_ffn_embed_dim")
    if not isinstance(values, Mapping) or not all(isinstance(values.get(key), int) for key in wanted):
        raise CheckpointError(f'{path} must name {", ".join(wanted)} in "args", got no such options. Check the path.')
    return {key: values[key] for key in wanted}
