"""Where weights came from: the protocols of the runs that trained them, read from their reports."""

import json
from dataclasses import asdict
from typing import Any

from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.protocol import of_parent
from xlmrxl_train.hub import is_local, local_path
from xlmrxl_train.track.secrets import redact


def parents_of(path: str | None) -> list[dict[str, Any]]:
    """Return the protocols of the run whose weights lie at `path` and of those before it, the earliest first.

    Args:
        path: model.path; nothing is returned where it is neither a run folder nor its `model/`.

    Raises:
        RunError: The run has no report, or none that can be read: what it was trained on is not known.
    """
    if path is None or not is_local(path):
        return []
    folder = local_path(path, "model.path")
    folder = folder.parent if folder.resolve().name == "model" else folder
    if not (folder / "config.yaml").is_file():
        return []
    report = folder / "report.json"
    try:
        protocol = json.loads(report.read_text(encoding="utf-8"))["protocol"]
        before = protocol.pop("parents", [])
        own = asdict(of_parent(protocol)) | {"run": redact(str(folder))}
        del own["parents"]
        return [asdict(of_parent(parent)) | {"run": parent["run"]} for parent in before] + [own]
    except FileNotFoundError:
        raise RunError(
            f"model.path={path} is a run without report.json, so that what it was trained on is not known. "
            "Let it finish: start its command again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{report} must say what the run was trained on, but cannot be read: {error}. "
            "Restore it, or write it again with the version that trained the run."
        ) from None
