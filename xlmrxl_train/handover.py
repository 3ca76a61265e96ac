"""What a run leaves behind for use: the selected model, and its adapter where one was trained."""

from pathlib import Path
from typing import Any

import torch

from xlmrxl_train.config import LoraTuningConfig
from xlmrxl_train.hub import is_local, resolve_model
from xlmrxl_train.inference.export.transformers_folder import entries_of
from xlmrxl_train.inference.model_folder import open_model_folder
from xlmrxl_train.model.writing import TensorEntry
from xlmrxl_train.parallel import Strategy
from xlmrxl_train.session import Session
from xlmrxl_train.training.export import weights_in
from xlmrxl_train.training.folder import writing


def export(session: Session, strategy: Strategy, checkpoint: Path, run: Path) -> None:
    """Write tokenizer and weights in the Hub's layout, from a checkpoint, one tensor in memory at a time.

    Whatever engine divides the model, its checkpoint has whole tensors. The model's config.json comes last and
    completes the folder.
    """
    model: Any = strategy.model
    entries, tuning, folder = weights_in(checkpoint), session.config.tuning, run / "model"
    if isinstance(tuning, LoraTuningConfig):
        adapter = run / "adapter"
        with writing(adapter):
            session.tokenizer.save(adapter)
            _write_adapter(session, model, [entry for entry in entries if entry.name in strategy.trainable], adapter)
        if not tuning.merge:
            return
        model, entries = entries_of(open_model_folder(str(adapter)), torch.float32)
    with writing(folder):
        session.tokenizer.save(folder)
        model.write_pretrained(folder, entries)


def _write_adapter(session: Session, model: Any, trained: list[TensorEntry], folder: Path) -> None:
    from xlmrxl_train.training.adapters import write_adapter  # late: an optional package

    settings, tuning = session.config.model, session.config.tuning
    assert settings.path is not None and isinstance(tuning, LoraTuningConfig)
    # A folder is named in full: the adapter may be read from anywhere on this machine.
    base = str(resolve_model(settings.path).resolve()) if is_local(settings.path) else settings.path
    write_adapter(folder, model, trained, tuning, base=base, revision=settings.revision)
