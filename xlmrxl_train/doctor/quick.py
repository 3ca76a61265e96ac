"""Checks that take no time and import no torch: launch scripts run them on every machine before they start ranks."""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from xlmrxl_train.config import Config, DataConfig, Zero3NvmeConfig
from xlmrxl_train.data.cache_folder import cache_folder
from xlmrxl_train.doctor.finding import Finding, existing, free_gigabytes, good, look, red, writable

OLDEST, NEWEST = (3, 11), (3, 13)
LITTLE, NONE = 20.0, 1.0  # gigabytes free: a checkpoint of XL has 42, one of tiny hardly any
DRIVER = Path("/proc/driver/nvidia/version")


def quick(config: Config | None) -> Iterator[Finding]:
    """Yield what is known at once of this machine and the run that is meant; None: none in particular."""
    yield _python()
    yield _packages()
    if finding := _driver():
        yield finding
    yield disk("disk of run.dir", Path(config.run.dir if config else "runs"), "run.dir")
    yield disk(
        "disk of the cache", cache_folder(config.data if config else DataConfig()), "data.cache or $XLMRXL_CACHE"
    )
    if config and isinstance(config.strategy, Zero3NvmeConfig) and config.strategy.nvme_path:
        yield disk("disk of strategy.nvme_path", Path(config.strategy.nvme_path), "strategy.nvme_path")


def _python() -> Finding:
    here = sys.version.split()[0]
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return good("Python", here)
    return red("Python", here, "Take Python 3.11 to 3.13.")


def _packages() -> Finding:
    try:
        wanted = [Requirement(line) for line in requires("xlmrxl_train") or []]
    except PackageNotFoundError:
        return look("packages", "xlmrxl_train is not installed, so what it needs is not known", "pip install -e .")
    wrong = []
    for need in wanted:
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(need.name)
        except PackageNotFoundError:
            wrong.append(f"{need.name} is absent")
            continue
        if not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} is {have}, wanted {need.specifier}")
    if wrong:
        return red("packages", "; ".join(wrong), "pip install -c constraints.txt -e .")
    return good("packages", f"torch {version('torch')}, deepspeed {version('deepspeed')}, all that is needed")


def _driver() -> Finding | None:
    if not DRIVER.is_file():
        return None
    driver = DRIVER.read_text(encoding="utf-8", errors="replace").partition("\n")[0].split("  ")[0]
    if "+cpu" in version("torch"):
        return red("NVIDIA driver", f"{driver}, but torch {version('torch')} is for CPUs", "Install torch for CUDA.")
    return good("NVIDIA driver", driver)


def disk(name: str, folder: Path, key: str) -> Finding:
    """Return whether a folder can be written, or made, and what room it has."""
    place = existing(folder)
    free = free_gigabytes(place)
    found = f"{folder}: {free:,.0f} GB free"
    if not writable(place):
        return red(name, f"{place} cannot be written", f"Mend its permissions, or choose another {key}.")
    if free < NONE:
        return red(name, f"{folder}: {free:.2f} GB free", f"Free space (xlmrxl clean), or choose another {key}.")
    if free < LITTLE:
        return look(name, found, f"A checkpoint of XL has 42 GB. Free space, or choose another {key}.")
    return good(name, found)
