"""Where weights came from: the protocols of the runs that trained them, read from their reports."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.hub import IN_RUN, is_local, local_path
from xlmrxl_train.track.secrets import redact


def parents_of(path: str | None) -> list[dict[str, Any]]:
    """Return the protocols of the run whose weights lie at `path` and of those before it, the earliest first.

    Args:
        path: model.path; nothing is returned where it is neither a run folder nor its model.

    Raises:
        RunError: The run has no report, or none that can be read: what it was trained on is not known.
    """
    if path is None or not is_local(path):
        return []
    folder = local_path(path, "model.path")
    folder = folder.parent if folder.resolve().name in IN_RUN else folder
    if not (folder / "config.yaml").is_file():
        return []
    own = asdict(protocol_of(folder))
    return [*own.pop("parents"), own | {"run": redact(str(folder))}]


def protocol_of(folder: Path) -> Protocol:
    """Return how the scores of a finished run came about.

    Raises:
        RunError: It has no report, or none that can be read.
    """
    report = folder / "report.json"
    try:
        return Protocol(**json.loads(report.read_text(encoding="utf-8"))["protocol"])
    except FileNotFoundError:
        raise RunError(
            f"{report} must say what the model there was trained on, found none. "
            "Let the run finish: start its command again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{report} must say what the model there was trained on, but cannot be read: {error}. "
            "Restore it from a copy, or train the run again."
        ) from None
