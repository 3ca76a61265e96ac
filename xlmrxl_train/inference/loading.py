"""A model spread over GPUs, host memory and disk. accelerate decides and moves; weights go straight to their place.

What lies on disk stays in the checkpoint's own files and is read from there whenever its layer computes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import check_device_map, get_balanced_memory
from torch import Tensor, nn

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import PreTrained, XLMRobertaXLLayer
from xlmrxl_train.model.encoder import LayerContext, XLMRobertaXLEncoder
from xlmrxl_train.model.weights import CheckpointReader, SafetensorsReader, read_floating

Place = int | str
_WHOLE = ["XLMRobertaXLLayer", "XLMRobertaXLEmbeddings", "XLMRobertaXLPooler", "LMHead", "ClassificationHead"]
"""Classes of modules that lie in one place."""


def load_spread(
    model: PreTrained, reader: CheckpointReader, stored: Mapping[str, str], dtype: torch.dtype | None, *,
    device_map: str | Mapping[str, Place], max_memory: Mapping[Place, int | str] | None = None,
    device: torch.device | str | None = None,
) -> None:  # fmt: skip
    """Fill a model on the meta device and let its modules fetch what they need when they compute.

    Args:
        model: Its parameters are replaced; those on disk stay on the meta device.
        reader: The checkpoint.
        stored: Parameter -> its name in the checkpoint.
        dtype: Of floating parameters; None keeps the file's.
        device_map: "auto", or module -> GPU number, "cpu" or "disk".
        max_memory: The most that each place may take, in bytes or as "20GB"; None: what is free.
        device: Must be None: the map says it.

    Raises:
        ConfigError: The map or the limits are wrong, or the model cannot be spread.
    """
    _check(model, stored, device_map, device)
    model.tie_weights()
    dtype = dtype or reader.read(next(iter(stored.values()))).dtype
    places = _automatic(model, max_memory, dtype) if device_map == "auto" else dict(device_map)  # type: ignore[arg-type]
    try:
        check_device_map(model, places)
    except ValueError as error:
        raise ConfigError(f"device_map must name a place for every module: {error} Use device_map='auto'.") from None
    _check_places(places)
    _keep_tied_together(model, places)
    index = _fill(model, reader, stored, dtype, places)
    dispatch_model(model, places, offload_index=index or None)
    computing = {place for place in places.values() if place not in ("cpu", "disk")}
    if len(computing) > 1:
        _follow_layers(model, places)


def _check(model: PreTrained, stored: Mapping[str, str], device_map: str | Mapping[str, Place], device: object) -> None:
    faults = []
    if isinstance(device_map, str) and device_map != "auto":
        faults.append(f"device_map must be 'auto' or map modules to places, got {device_map!r}. Use device=.")
    if device is not None:
        faults.append(f"device must be None with device_map, which says it, got {device}. Leave one of them out.")
    if model.quantization is not None:
        faults.append("device_map must be None for quantized weights, which are small. Use device= instead.")
    if new := [name for name, _ in model.named_parameters() if name not in stored]:
        faults.append(
            f"device_map is for models whose weights are all stored, got none of {', '.join(new)}. "
            "Train the head first, or load on one device."
        )
    if faults:
        raise ConfigError(*faults)


def _check_places(places: Mapping[str, Place]) -> None:
    count = torch.cuda.device_count()
    for module, place in places.items():
        number = str(place).removeprefix("cuda:")
        if place not in ("cpu", "disk") and not (number.isdecimal() and int(number) < count):
            there = f"GPUs 0 to {count - 1}" if count else "no GPU"
            raise ConfigError(
                f"device_map must name cpu, disk or the number of a GPU, got {place!r} for {module or 'the model'}; "
                f"here is {there}. Mend device_map, or take out of max_memory what is not there."
            )


def _automatic(model: PreTrained, max_memory: Mapping[Place, int | str] | None, dtype: torch.dtype) -> dict[str, Place]:
    """Return a place for every module: GPUs evenly, then host memory, then disk."""
    try:
        limits = None if max_memory is None else dict(max_memory)
        balanced = get_balanced_memory(model, limits, no_split_module_classes=_WHOLE, dtype=dtype)
        places: dict[str, Place] = infer_auto_device_map(
            model, max_memory=balanced, no_split_module_classes=_WHOLE, dtype=dtype
        )
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"max_memory must map GPU numbers, 'cpu' and 'disk' to bytes or sizes as '20GB', got {max_memory}: "
            f"{str(error)[:160]}. Leave it out to use what is free."
        ) from None
    return places


def _place_of(name: str, places: Mapping[str, Place]) -> Place:
    """Return where a module or parameter lies: the place of the innermost module that has one."""
    while name and name not in places:
        name = name.rpartition(".")[0]
    return places[name]


def _keep_tied_together(model: PreTrained, places: dict[str, Place]) -> None:
    """Put a head where the embedding lies that it shares its weight with, so that there is one copy."""
    for alias, name in model.tied_weights().items():
        head, place = alias.partition(".")[0], _place_of(name, places)
        if head != name.partition(".")[0] and "" not in places:
            for inner in [module for module in places if module == head or module.startswith(f"{head}.")]:
                del places[inner]
            places[head] = place


@torch.no_grad()
def _fill(
    model: PreTrained, reader: CheckpointReader, stored: Mapping[str, str], dtype: torch.dtype,
    places: Mapping[str, Place],
) -> dict[str, dict[str, str]]:  # fmt: skip
    """Read what has a place in memory; return where in the files the rest is, as accelerate reads it."""
    index: dict[str, dict[str, str]] = {}
    for name, parameter in list(model.named_parameters()):
        place = _place_of(name, places)
        if place == "disk":
            if not isinstance(reader, SafetensorsReader):
                raise ConfigError(
                    f"device_map can leave weights on disk in safetensors alone, got {reader.file_of(stored[name])}. "
                    "Write them anew: xlmrxl export <folder> --to transformers --output <folder>."
                )
            index[name] = {
                "safetensors_file": str(reader.file_of(stored[name])),
                "weight_name": stored[name],
                "dtype": str(dtype).removeprefix("torch."),
            }
            value = torch.empty(parameter.shape, dtype=dtype, device="meta")  # what is read takes its dtype
        else:
            source = read_floating(reader, stored[name])
            value = torch.empty(parameter.shape, dtype=dtype, device=torch.device(place)).copy_(source)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=parameter.requires_grad))
    model.tie_weights()
    return index | {alias: index[name] for alias, name in model.tied_weights().items() if name in index}


def _follow_layers(model: PreTrained, places: Mapping[str, Place]) -> None:
    """Take along what accelerate does not see: the plan of attention goes to each layer's GPU, results come back.

    Layers hand their states on to the next one's GPU; all else (embeddings, norms, heads) returns to the batch's.
    """
    held: dict[torch.device, tuple[LayerContext, LayerContext]] = {}
    main = next(place for place in places.values() if place not in ("cpu", "disk"))

    def move(device: torch.device) -> Any:
        def hook(_: nn.Module, words: tuple[Tensor, LayerContext]) -> tuple[Tensor, LayerContext]:
            hidden_TD, context = words
            if device not in held or held[device][0] is not context:
                held[device] = context, context.to(device)
            return hidden_TD, held[device][1]

        return hook

    def back(module: nn.Module, words: tuple[Any, ...], output: Any) -> Any:
        if isinstance(module, XLMRobertaXLEncoder):
            held.clear()
        batch = next(word for word in words if isinstance(word, Tensor))
        return to_device(output, batch.device)

    for name, module in model.named_modules():
        if isinstance(module, XLMRobertaXLLayer):
            place = _place_of(name, places)
            module.register_forward_pre_hook(move(torch.device(main if place in ("cpu", "disk") else place)))
        elif isinstance(module, XLMRobertaXLEncoder) or (name in places and name):
            module.register_forward_hook(back)


def to_device(values: Any, device: torch.device) -> Any:
    """Return a tensor, or tuples of them and None, on a device."""
    if isinstance(values, Tensor):
        return values.to(device)
    return tuple(to_device(value, device) for value in values) if isinstance(values, tuple) else values
