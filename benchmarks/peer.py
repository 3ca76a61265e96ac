"""transformers' model in transformers' Trainer, and its step on a prepared batch."""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, XLMRobertaXLConfig, XLMRobertaXLForSequenceClassification
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmarks.workload import Examples, Shape, padded_batch


def peer_model(
    shape: Shape, vocab_size: int, dropout: float, attention: str, device: torch.device | None = None
) -> XLMRobertaXLForSequenceClassification:
    """Return the Hub's classifier with random weights, made on `device`."""
    config = XLMRobertaXLConfig(**shape.options(vocab_size, dropout), pad_token_id=1, bos_token_id=0, eos_token_id=2)
    config._attn_implementation = attention
    with torch.device(device or "cpu"):
        return XLMRobertaXLForSequenceClassification(config)


def arguments(batch_size: int, *, cuda: bool, **changes: Any) -> TrainingArguments:
    """Return the arguments of a run in bf16 without logs and checkpoints; the rest are Trainer's defaults."""
    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(prefix="peer-"),
        "per_device_train_batch_size": batch_size,
        "learning_rate": 1e-5,
        "bf16": True,
        "use_cpu": not cuda,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
    }
    return TrainingArguments(**(options | changes))


class Peer:
    """Trainer's own step (training_step, clipping, fused AdamW, schedule) on batches that are ready."""

    def __init__(self, model: XLMRobertaXLForSequenceClassification, batch_size: int, device: torch.device) -> None:
        self.trainer = Trainer(model=model, args=arguments(batch_size, cuda=device.type == "cuda"))
        self.trainer.create_optimizer()
        accelerator = self.trainer.accelerator
        self.model, self.trainer.optimizer = accelerator.prepare(self.trainer.model, self.trainer.optimizer)
        self.trainer.model_wrapped = self.model
        self.trainer.create_scheduler(num_training_steps=1_000_000)
        self.trainer.current_gradient_accumulation_steps = 1

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Make one optimizer step and return the loss."""
        trainer = self.trainer
        loss = trainer.training_step(self.model, dict(batch))
        trainer.accelerator.clip_grad_norm_(self.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        self.model.zero_grad()
        return float(loss)


def grouped_positions(examples: Examples, batch_size: int, seed: int = 0) -> list[list[int]]:
    """Return the batches of one epoch under `train_sampling_strategy="group_by_length"`, its last one left out."""
    generator = torch.Generator().manual_seed(seed)
    sampler = LengthGroupedSampler(batch_size, lengths=examples.lengths, generator=generator)
    order = list(sampler)
    return [order[first : first + batch_size] for first in range(0, len(order) - batch_size + 1, batch_size)]


class PaddedRows(torch.utils.data.Dataset):
    """Examples as Trainer's data sets give them."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.examples.ids[index], "labels": self.examples.labels[index], "position": index}

    def collate(self, rows: Sequence[dict[str, Any]], length: int | None = None) -> dict[str, torch.Tensor]:
        """Pad to the longest of a batch, or to `length`."""
        return padded_batch(self.examples, [row["position"] for row in rows], length)
