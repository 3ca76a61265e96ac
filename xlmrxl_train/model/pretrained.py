"""What all public classes share: initialisation, loading, saving, and the settings of a run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model.configuration import ATTENTION_BACKENDS, XLMRobertaXLConfig
from xlmrxl_train.model.layers import Embedding, LayerNorm
from xlmrxl_train.model.quantization import (
    QuantizationConfig,
    QuantizedReader,
    check_installed,
    load_quantized,
    quantized_entries,
)
from xlmrxl_train.model.source import ParameterSource
from xlmrxl_train.model.weights import CheckpointReader, LoadReport, load_weights, match_weights, open_checkpoint
from xlmrxl_train.model.writing import DEFAULT_SHARD_BYTES, TensorEntry, write_checkpoint, write_config

logger = logging.getLogger(__name__)


@torch.no_grad()
def initialize(module: nn.Module, std: float) -> None:
    """Draw new weights as the Hub does: N(0, std), zero biases and padding rows, layer norms 1 and 0.

    Source: transformers 5.23, PreTrainedModel._init_weights.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.normal_(0.0, std)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, Embedding):
            part.weight.normal_(0.0, std)
            if part.padding_idx is not None:
                part.weight[part.padding_idx].zero_()
        elif isinstance(part, LayerNorm):
            part.weight.fill_(1.0)
            part.bias.zero_()


class PreTrained(nn.Module):
    """A model with a configuration that is read from and written to the Hub's file layout."""

    prefix: ClassVar[str] = "roberta."
    """Where the Hub's full names put the encoder of this class: "" in the bare model itself."""
    head_modules: ClassVar[tuple[str, ...]] = ()
    """Modules that a checkpoint may lack as a whole; they are then initialised."""
    head_is_of_its_kind: ClassVar[bool] = False
    """Whether no other public class can use the last of these modules, whatever it is called there."""
    head_has_labels: ClassVar[bool] = False
    """Whether its rows stand for the labels of the configuration."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.config = config
        self._attn_implementation = config.attn_implementation
        self.load_report: LoadReport | None = None
        self.quantization: QuantizationConfig | None = None

    @property
    def _settings_owner(self) -> "PreTrained":
        owner = getattr(self, "roberta", self)
        assert isinstance(owner, PreTrained)
        return owner

    @property
    def attn_implementation(self) -> str:
        """The attention backend: auto, grouped, sdpa, varlen or eager."""
        return self._settings_owner._attn_implementation

    @attn_implementation.setter
    def attn_implementation(self, name: str) -> None:
        if name not in ATTENTION_BACKENDS:
            raise ConfigError(
                f'attn_implementation must be one of {", ".join(ATTENTION_BACKENDS)}, got "{name}". '
                '"auto" picks per device.'
            )
        self._settings_owner._attn_implementation = name

    @property
    def device(self) -> torch.device:
        """Of the first parameter that is in memory: with a device_map others lie elsewhere."""
        devices = [parameter.device for parameter in self.parameters()]
        return next((device for device in devices if device.type != "meta"), devices[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of the first parameter."""
        return next(self.parameters()).dtype

    def num_parameters(self) -> int:
        """Count elements, tied ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tied_weights(self) -> dict[str, str]:
        """Return alias -> name of the parameter that is stored."""
        return {}

    def tie_weights(self) -> None:
        """Make aliases and their parameters one object again, after a change of either."""
        for alias, name in self.tied_weights().items():
            module_name, _, attribute = alias.rpartition(".")
            setattr(self.get_submodule(module_name), attribute, self.get_parameter(name))

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        attn_implementation: str | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        ignore_mismatched_sizes: bool = False,
        quantization_config: QuantizationConfig | None = None,
        device_map: str | Mapping[str, int | str] | None = None,
        max_memory: Mapping[int | str, int | str] | None = None,
        **overrides: object,
    ) -> Self:
        """Build the model on the meta device and fill it tensor by tensor, in evaluation mode.

        Args:
            path_or_hub_id: A folder with config.json and weights, or a name on the Hub.
            dtype: Of the parameters; None keeps the file's.
            torch_dtype: The same under its older name.
            attn_implementation: As the attribute.
            device: Of the parameters; None is the CPU.
            revision: Of a Hub repository.
            ignore_mismatched_sizes: Head tensors of another shape (other labels) are initialised instead of refused.
            quantization_config: Round the weights of the layers; everything else is then bfloat16. None: as the folder
                was written.
            device_map: "auto": spread the layers over GPUs, host memory and disk (the files themselves, which must
                stay); or module -> GPU number, "cpu" or "disk". Instead of `device`.
            max_memory: Of `device_map`: the most that each GPU (by number), "cpu" and "disk" may take, as "20GB".
            overrides: Keys of the configuration, as num_labels=3.

        Raises:
            CheckpointError: Files are missing or damaged, or their tensors do not fit; all faults are listed.
            ConfigError: A wrong override.
        """
        _check_dtype(dtype or torch_dtype)
        place = _place(device)
        folder = Path(path_or_hub_id)
        if not folder.is_dir():
            from xlmrxl_train.hub import resolve_model  # late: reading a folder needs no Hub client

            folder = resolve_model(str(path_or_hub_id), revision)
        config = cls.read_config(folder, **overrides)
        with torch.device("meta"):
            model = cls(config)
        if attn_implementation is not None:
            model.attn_implementation = attn_implementation
        model.quantization = _quantization(folder, config, quantization_config, dtype or torch_dtype)
        if model.quantization is not None and device_map == "auto" and max_memory is None and device is None:
            device_map, place = None, torch.device("cuda" if torch.cuda.is_available() else "cpu")  # they fit on one
        reader: CheckpointReader = open_checkpoint(folder)
        if "quantization_config" in config.extra:
            reader = QuantizedReader(reader)
        stored, report = model.match(reader, ignore_mismatched_sizes=ignore_mismatched_sizes)
        model.load_report = report
        if device_map is not None:
            from xlmrxl_train.inference.loading import load_spread  # late: it imports accelerate

            load_spread(
                model, reader, stored, dtype or torch_dtype, device_map=device_map, max_memory=max_memory,
                device=device,
            )  # fmt: skip
        else:
            model._fill(reader, stored, dtype or torch_dtype, place, report.new)
        if device_map is not None or model.device.type != "meta":  # there it is only looked at
            report.log(logger, folder)
        return model.eval()

    def _fill(
        self, reader: CheckpointReader, stored: dict[str, str], dtype: torch.dtype | None, place: torch.device,
        new: tuple[str, ...],
    ) -> None:  # fmt: skip
        """Take over the stored weights on one device, and draw the others."""
        if self.quantization is None:
            load_weights(self, reader, stored, dtype, place)
        elif place.type != "meta":
            load_quantized(self, reader, stored, self.quantization, place)
        self.initialize_new(new)
        self.tie_weights()

    @classmethod
    def read_config(cls, folder: Path, **overrides: object) -> XLMRobertaXLConfig:
        """Return the shape of the model in a folder; `overrides` win.

        Raises:
            CheckpointError: config.json is missing or is not a JSON object.
            ConfigError: A wrong override or value.
        """
        return XLMRobertaXLConfig.from_json_file(folder / "config.json", **overrides)

    def match(
        self, reader: CheckpointReader, *, ignore_mismatched_sizes: bool = False, misfit: str | None = None
    ) -> tuple[dict[str, str], LoadReport]:
        """Find the tensor of each parameter in a checkpoint; see `match_weights`."""
        return match_weights(
            self, reader, prefix=self.prefix, head_modules=self.head_modules, tied=self.tied_weights(),
            ignore_mismatched_sizes=ignore_mismatched_sizes, misfit=misfit,
        )  # fmt: skip

    @property
    def architecture(self) -> str:
        """The class that config.json names. FSDP2 makes one of its own around it as it divides a model."""
        return next(kind.__name__ for kind in type(self).__mro__ if kind.__module__.startswith(f"{__package__}."))

    def source(self, folder: Path | None, seed: int) -> ParameterSource:
        """Return where the values of a model on the meta device come from, for those who fill it themselves.

        Args:
            folder: With weights; None: all parameters are new. Its head is taken over only if its config.json says
                that it is one of the same kind, with the same labels in the same order.
            seed: Of new parameters.

        Raises:
            CheckpointError: As `from_pretrained`.
        """
        std = self.config.initializer_range
        if folder is None:
            return ParameterSource(self, std, seed, None, {})
        reader = open_checkpoint(folder)
        stored, report = self.match(reader, misfit=self._misfit(folder))
        return ParameterSource(self, std, seed, reader, stored, report)

    def _misfit(self, folder: Path) -> str | None:
        """Return why the head of a checkpoint is not this model's, by what its config.json says; None: it may be."""
        if not self.head_is_of_its_kind:
            return None
        stored, own = XLMRobertaXLConfig.from_json_file(folder / "config.json"), self.config
        kinds = stored.extra.get("architectures") or [self.architecture]  # what was converted may not say it
        if isinstance(kinds, list) and self.architecture not in kinds:
            return f"the head in {folder} is of {', '.join(map(str, kinds))}"
        if not self.head_has_labels or stored.id2label == own.id2label:
            return None
        before, now = (", ".join(name for _, name in sorted((one.id2label or {}).items())) for one in (stored, own))
        return f"the head in {folder} has the labels {before}, not {now}"

    @torch.no_grad()
    def initialize_new(self, names: tuple[str, ...]) -> None:
        """Draw the parameters that a checkpoint did not hold, from torch's global seed, in the model's order."""
        for name in names:
            owner_name, _, attribute = name.rpartition(".")
            parameter = self.get_parameter(name)
            if isinstance(self.get_submodule(owner_name), LayerNorm):
                parameter.fill_(1.0 if attribute == "weight" else 0.0)
            elif attribute == "weight":
                parameter.normal_(0.0, self.config.initializer_range)
            else:
                parameter.zero_()

    def save_pretrained(self, folder: str | Path, *, max_shard_bytes: float = DEFAULT_SHARD_BYTES) -> None:
        """Write config.json and safetensors as transformers does; tied tensors are stored once.

        Args:
            folder: Made if missing. Files appear under their names only when complete.
            max_shard_bytes: A larger model is cut into several files and an index.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        if self.quantization is not None:
            entries = quantized_entries(self, self.quantization, self.get_parameter)
        else:
            entries = [_entry(name, parameter) for name, parameter in self.named_parameters()]
        self.write_pretrained(Path(folder), entries, max_shard_bytes=max_shard_bytes)

    def config_values(self) -> dict[str, object]:
        """Return what config.json holds."""
        return self.config.to_dict(self.architecture)

    def write_pretrained(
        self, folder: Path, entries: Sequence[TensorEntry], *, max_shard_bytes: float = DEFAULT_SHARD_BYTES
    ) -> None:
        """Do the same with values from elsewhere: an engine may hold this model in parts.

        Args:
            folder: As in `save_pretrained`.
            entries: One per parameter.
            max_shard_bytes: As in `save_pretrained`.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        dtypes = [entry.dtype for entry in entries if entry.dtype.is_floating_point]
        dtype = dtypes[0] if self.quantization is None else torch.bfloat16
        write_checkpoint(folder, self._config_with(dtype), entries, max_shard_bytes)

    def write_config(self, folder: Path, dtype: torch.dtype) -> None:
        """Write config.json alone, beside weights in another form.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        write_config(folder, self._config_with(dtype))

    def _config_with(self, dtype: torch.dtype) -> dict[str, object]:
        config = self.config_values()
        if self.quantization is not None:
            config["quantization_config"] = self.quantization.to_dict()
        config["dtype"] = str(dtype).removeprefix("torch.")
        config.pop("torch_dtype", None)
        return dict(sorted(config.items()))


def _check_dtype(dtype: object) -> None:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(
            f"dtype must be a floating one such as torch.bfloat16, or None, got {dtype!r}. Set one of them."
        )


def _place(device: torch.device | str | None) -> torch.device:
    """Return the device that is meant, the CPU where none is.

    Raises:
        ConfigError: There is no such device.
    """
    try:
        return torch.empty(0, device=torch.device("cpu" if device is None else device)).device
    except (RuntimeError, AssertionError, TypeError):  # torch's words for an unknown one, and for none such here
        raise ConfigError(
            f"device must be cpu, meta, or a GPU that is here, got {device!r}. Leave it out for the CPU."
        ) from None


def _quantization(
    folder: Path, config: XLMRobertaXLConfig, wanted: object, dtype: torch.dtype | None
) -> QuantizationConfig | None:
    """Return how the weights are or are to be rounded; None where they are not.

    Raises:
        ConfigError: It cannot be as wanted, or torchao is missing.
        CheckpointError: The folder's are rounded in another way.
    """
    if not isinstance(wanted, QuantizationConfig | None):
        raise ConfigError(
            f"quantization_config must be a QuantizationConfig, got a {type(wanted).__name__}. "
            "Write QuantizationConfig(weights='int4')."
        )
    if "quantization_config" in config.extra:
        stored = QuantizationConfig.from_dict(config.extra["quantization_config"], folder / "config.json")
        if wanted not in (None, stored):
            raise ConfigError(
                f"quantization_config must be that of {folder} or None, got {wanted}, there {stored}. "
                "Take the model that was quantized."
            )
        wanted = stored
    if wanted is None:
        return None
    check_installed()
    if dtype not in (None, torch.bfloat16):
        raise ConfigError(
            f"dtype must be torch.bfloat16 or None for quantized weights, got {dtype}: their kernels compute in it."
        )
    return wanted


def _entry(name: str, parameter: Tensor) -> TensorEntry:
    return TensorEntry(name=name, dtype=parameter.dtype, shape=tuple(parameter.shape), read=lambda: parameter)
