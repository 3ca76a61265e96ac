"""A word of a command line becomes a model: which folder, which class, and the run that it came from."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xlmrxl_train import model as models
from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.hub import TOKENIZER_FILES, local_path, resolve_model
from xlmrxl_train.model import PreTrained, XLMRobertaXLConfig
from xlmrxl_train.model.configuration import read_config_file

CLASSES: dict[str, type[PreTrained]] = {
    name: value
    for name, value in vars(models).items()
    if name == "XLMRobertaXLModel" or name.startswith("XLMRobertaXLFor")
}
"""The public models, by the name that config.json gives them."""
_BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """A folder with config.json and weights, of which nothing was read but the former."""

    path: Path
    run: Path | None
    """The folder of the finished run that wrote it, if there is one."""
    config: XLMRobertaXLConfig
    model_class: type[PreTrained]

    @property
    def quantization(self) -> object:
        """What config.json says of quantized weights; None where they are not."""
        return self.config.extra.get("quantization_config")

    @property
    def tokenizer_files(self) -> list[Path]:
        """The files that make its tokenizer."""
        names = [*TOKENIZER_FILES, *_BESIDE_TOKENIZER]
        return [self.path / name for name in names if (self.path / name).is_file()]


def open_model_folder(word: str) -> ModelFolder:
    """Find the model that a run folder, a folder or a Hub id names.

    Raises:
        ConfigError: There is none.
        CheckpointError: Its config.json cannot be read, or does not name one public model.
    """
    path = resolve_model(word)
    run = path.parent if (path.parent / "report.json").is_file() and (path.parent / "config.yaml").is_file() else None
    if read_config_file(path / "config.json").get("model_type") == "encoder-decoder":
        raise ConfigError(
            f"export, average and quantize are for models of one stack, got the translation model {path}. "
            "transformers' EncoderDecoderModel reads that folder as it is; xlmrxl predict uses it."
        )
    config = XLMRobertaXLConfig.from_json_file(path / "config.json")
    named = config.extra.get("architectures")
    name = named[0] if isinstance(named, list) and len(named) == 1 else None
    if not isinstance(name, str) or name not in CLASSES:
        raise CheckpointError(
            f"{path / 'config.json'} must name one of {', '.join(CLASSES)} in architectures, got {str(named)[:80]}. "
            "Add the class that the weights belong to."
        )
    return ModelFolder(path=path, run=run, config=config, model_class=CLASSES[name])


def check_not_quantized(folder: ModelFolder, purpose: str) -> None:
    """Refuse rounded weights for what wants the original ones.

    Raises:
        ConfigError: The weights are quantized.
    """
    if folder.quantization is not None:
        raise ConfigError(
            f"{purpose} must be made from weights that are not quantized, got {folder.path}. "
            "Take the model that it was quantized from."
        )


def new_folder(word: str) -> Path:
    """Return a folder that is still to be written.

    Raises:
        ConfigError: There is something already.
    """
    path = local_path(word, "--output")
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise ConfigError(f"--output must be a folder, got {word[:120]}: {error.strerror}. Choose another.") from None
    if taken:
        raise ConfigError(f"--output must be a new or an empty folder, got {path}. Choose another, or remove it.")
    return path


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[None]:
    """Remove a new folder again where its writing ends early, so that the same command can be given again."""
    try:
        yield
    except BaseException:  # also Ctrl-C
        shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed must not hide why
        raise
