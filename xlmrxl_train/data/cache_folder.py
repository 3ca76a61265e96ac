"""Where tokenised data are kept."""

import os
from pathlib import Path

from xlmrxl_train.config import DataConfig
from xlmrxl_train.hub import local_path


def cache_folder(data: DataConfig) -> Path:
    """Return the folder of tokenised data: data.cache, else $XLMRXL_CACHE, else ~/.cache/xlmrxl_train."""
    folder = data.cache or os.environ.get("XLMRXL_CACHE") or "~/.cache/xlmrxl_train"
    return local_path(folder, "data.cache")
