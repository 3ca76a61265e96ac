"""Fine-tune XLM-RoBERTa-XL and XXL, and measure what transfers to other languages.

    from xlmrxl_train import load_config, train, evaluate
    report = train(load_config(["recipe=demo"]))

    from xlmrxl_train import pipeline
    pipeline("fill-mask", "facebook/xlm-roberta-xl", dtype="bfloat16")("Bonjour, je suis un modèle <mask>.")

Names are imported when they are first used, so that `--help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlmrxl_train.cli import load_config
    from xlmrxl_train.data.tokenizer import Tokenizer
    from xlmrxl_train.inference.making import pipeline
    from xlmrxl_train.run import evaluate, prepare, train

__version__ = "0.1.0"
__all__ = ["Tokenizer", "__version__", "evaluate", "load_config", "pipeline", "prepare", "train"]

_HOMES = {
    "load_config": "xlmrxl_train.cli",
    "Tokenizer": "xlmrxl_train.data.tokenizer",
    "pipeline": "xlmrxl_train.inference.making",
    "train": "xlmrxl_train.run",
    "evaluate": "xlmrxl_train.run",
    "prepare": "xlmrxl_train.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
