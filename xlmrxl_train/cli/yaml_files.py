"""Read a YAML file of a person's own, whatever is in it: keys and values, or one line that says what is wrong."""

import io
import re
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xlmrxl_train.errors import ConfigError

_MAX_ALIASES = 20


def read_yaml(path: Path) -> DictConfig:
    """Return the keys and values of a YAML file.

    Raises:
        ConfigError: It cannot be read, or holds something else; the message names file and line.
    """
    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise ConfigError(f"{path} must be a YAML file, got a folder or a device. Rename or remove it.")
    try:
        text = path.read_text(encoding="utf-8")
        if len(re.findall(r"[:\[,{-]\s*\*\w", text)) > _MAX_ALIASES:
            raise ValueError(f"more than {_MAX_ALIASES} aliases (*name), each of which copies what it stands for")
        values = OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = str(getattr(error, "problem", None) or error).split("\n")[0][:200].rstrip(".")
        raise ConfigError(f"{path}{line} cannot be read as YAML: {problem}. Mend the file, or remove it.") from error
    if not isinstance(values, DictConfig):
        raise ConfigError(f"{path} must hold keys and values, not a list. Write key: value.")
    return values
