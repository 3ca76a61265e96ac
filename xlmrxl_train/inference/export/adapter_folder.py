"""An adapter alone, as peft reads it: some megabytes beside the weights that it was trained on."""

import shutil
from dataclasses import replace
from pathlib import Path

from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.inference.export.transformers_folder import copy_tokenizer
from xlmrxl_train.inference.model_folder import ModelFolder
from xlmrxl_train.model.adapted_weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def adapter_of(source: ModelFolder) -> ModelFolder:
    """Return the folder of the adapter that a model is or was made from.

    Raises:
        ConfigError: There is none.
    """
    places = [source.path] if source.run is None else [source.path, source.run / "adapter"]
    for path in places:
        if (path / ADAPTER_CONFIG).is_file():
            return replace(source, path=path)
    raise ConfigError(
        "--to adapter must have a run with tuning=lora, dora or rslora, or the folder of an adapter, "
        f"got {source.path}. Use --to transformers."
    )


def copy_adapter(source: ModelFolder, target: Path) -> None:
    """Copy an adapter with its tokenizer.

    Raises:
        CheckpointError: It cannot be read or written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "config.json"):
            shutil.copyfile(source.path / name, target / name)
    except OSError as error:
        raise CheckpointError(
            f"{source.path} cannot be copied to {target}: {error.strerror}. Check the paths and the free space."
        ) from error
    copy_tokenizer(source, target)
