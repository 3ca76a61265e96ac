"""The work that both sides do: shapes, real token ids, batches, and the two models with equal weights."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlmrxl_train.config import Config, DatasetConfig, SequenceClassificationConfig
from xlmrxl_train.data.examples import Batch, Feature
from xlmrxl_train.data.planning import micro_batches, step_examples
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForSequenceClassification, XLMRobertaXLLayer
from xlmrxl_train.parallel import Blueprint, Strategy, World, make_strategy
from xlmrxl_train.tasks.sequence_classification import SequenceClassification
from xlmrxl_train.training.optimizer import OptimizerPlan
from xlmrxl_train.training.vocabulary import train_rows

LABELS = ["entailment", "neutral", "contradiction"]
REAL_VOCABULARY = 250_002
PAD = 1

# facts.md: real XNLI English pairs under XLM-R's vocabulary have 42.2 tokens on average, p95 65, p99 73, longest 96.
MEAN_TOKENS, P95_TOKENS, LONGEST = 42.2, 65, 96


@dataclass(kw_only=True, frozen=True)
class Shape:
    """An encoder's size."""

    layers: int
    hidden: int
    heads: int
    intermediate: int

    def options(self, vocab_size: int, dropout: float) -> dict[str, Any]:
        """Return the configuration's keys, which are the same for both models."""
        return {
            "vocab_size": vocab_size,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 514,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
            "num_labels": len(LABELS),
        }

    def training_flops(self, lengths: Sequence[int], *, first_tokens_only: bool = False) -> float:
        """Return the multiplications and additions of forward and backward over real tokens.

        6 per weight and token, and 12·L·D per token and layer for attention's two products (4·L·D forward). With
        `first_tokens_only` the last layer computes keys and values of all tokens, and the rest of first tokens.
        """
        weights = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        tokens, squares = sum(lengths), sum(length * length for length in lengths)
        layer = 6.0 * weights * tokens + 12.0 * self.hidden * squares
        if not first_tokens_only:
            return self.layers * layer
        keys_values = 2 * self.hidden**2
        last = 6.0 * (keys_values * tokens + (weights - keys_values) * len(lengths)) + 12.0 * self.hidden * tokens
        return (self.layers - 1) * layer + last


SHAPES = {
    "8x512": Shape(layers=8, hidden=512, heads=8, intermediate=2048),
    "2xXL": Shape(layers=2, hidden=2560, heads=32, intermediate=10240),
    "XL": Shape(layers=36, hidden=2560, heads=32, intermediate=10240),
    "4x512": Shape(layers=4, hidden=512, heads=8, intermediate=2048),
    "tiny": Shape(layers=2, hidden=64, heads=4, intermediate=256),
}


@dataclass(kw_only=True)
class Examples:
    """Tokenised pairs."""

    ids: list[list[int]]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pair, special ones counted."""
        return [len(ids) for ids in self.ids]

    @property
    def words(self) -> torch.Tensor:
        """Every token that occurs, ascending."""
        return torch.from_numpy(np.unique(np.concatenate(self.ids)))

    def folded(self, rows: int) -> "Examples":
        """Return the same pairs with ids folded into a table of `rows`; the special tokens keep theirs."""
        return Examples(
            ids=[[i if i < 4 else 4 + (i - 4) % (rows - 4) for i in ids] for ids in self.ids], labels=self.labels
        )


def xnli(data: Path, language: str = "en", splits: Sequence[str] = ("test", "dev")) -> Examples:
    """Read XNLI pairs and tokenise them with XLM-R's vocabulary, both from `data` (see its SOURCES.md)."""
    tokenizer = Tokenizer.from_path(data / "tokenizer" / "xlmr" / "tokenizer.json.gz")
    rows: list[list[str]] = []
    for split in splits:
        with gzip.open(data / "nli" / "xnli" / split / f"{split}-{language}.tsv.gz", "rt", encoding="utf-8") as lines:
            rows += [line.rstrip("\n").split("\t") for line in lines]
    ids = tokenizer.encode_batch([row[0] for row in rows], [row[1] for row in rows], max_length=256)
    return Examples(ids=ids, labels=[LABELS.index(row[2]) for row in rows])


def synthetic(count: int, vocab_size: int, seed: int = 0) -> Examples:
    """Make up pairs with XNLI's lengths (a gamma distribution with its mean and 95 % quantile), for lack of the data.

    Ids follow 1/rank, as words do.
    """
    random = np.random.default_rng(seed)
    shape = 10.5  # mean 42.2, 95 % quantile 65.8, 99 % quantile 78
    lengths = np.clip(np.round(random.gamma(shape, MEAN_TOKENS / shape, count)), 8, LONGEST).astype(int)
    ids = [
        [0, *(4 + np.floor((vocab_size - 4) ** random.random(length - 2)).astype(int) % (vocab_size - 4)).tolist(), 2]
        for length in lengths
    ]
    return Examples(ids=ids, labels=random.integers(0, len(LABELS), count).tolist())


def load_examples(data: Path | None, vocab_size: int) -> tuple[Examples, str]:
    """Return pairs for a vocabulary of `vocab_size` rows and where they come from."""
    if data is None or not (data / "nli" / "xnli").is_dir():
        return synthetic(7500, vocab_size), "made-up ids with XNLI's lengths"
    examples = xnli(data)
    return (examples if vocab_size >= REAL_VOCABULARY else examples.folded(vocab_size)), "XNLI English, test and dev"


def step_positions(examples: Examples, batch_size: int, step: int, seed: int = 1) -> list[int]:
    """Return the examples of a step in random order, as training draws them."""
    steps = len(examples) // batch_size
    return step_examples(len(examples), batch_size, seed, *divmod(step, steps)).tolist()


@dataclass(frozen=True)
class Ids:
    """What stands for a tokenizer where ids are given."""

    rows: int = REAL_VOCABULARY
    pad_token_id: int = PAD

    def __len__(self) -> int:
        return self.rows


def classification(tokenizer: Ids) -> SequenceClassification:
    """Return the task that all benchmarks train."""
    dataset = DatasetConfig(name="XNLI", labels=LABELS, columns={"text": "a", "text_pair": "b", "label": "c"})
    return SequenceClassification(SequenceClassificationConfig(), dataset, tokenizer)


def our_batches(
    examples: Examples, positions: Sequence[int], token_budget: int, *, rank: int = 0, ranks: int = 1
) -> list[Batch]:
    """Return one rank's micro-batches of a step, planned and collated as the trainer does it."""
    task, lengths = classification(Ids()), examples.lengths
    batches = []
    for part in micro_batches([lengths[position] for position in positions], ranks, token_budget)[rank]:
        chosen = [positions[index] for index in part]
        features = [
            Feature(example=0, input_ids=examples.ids[position], columns={"label": examples.labels[position]})
            for position in chosen
        ]
        batches.append(task.collate(features, [(0, position) for position in chosen], 1))
    return batches


def padded_batch(examples: Examples, positions: Sequence[int], length: int | None = None) -> dict[str, torch.Tensor]:
    """Return the Hub's form of a batch, padded to its longest or to `length`."""
    rows = [examples.ids[position] for position in positions]
    width = length or max(map(len, rows))
    ids = torch.full((len(rows), width), PAD)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    labels = torch.tensor([examples.labels[position] for position in positions])
    return {"input_ids": ids, "attention_mask": ids.ne(PAD).long(), "labels": labels}


def our_model(
    shape: Shape, vocab_size: int, dropout: float, *, device: torch.device | None = None, backend: str = "auto"
) -> Any:
    """Return our classifier with random weights, made on `device`."""
    config = XLMRobertaXLConfig(**shape.options(vocab_size, dropout), attn_implementation=backend)
    with torch.device(device or "cpu"):
        return XLMRobertaXLForSequenceClassification(config)


def our_strategy(
    model: Any, device: torch.device, *, recompute: str = "none", precision: str = "bf16",
    words: torch.Tensor | None = None,
) -> Strategy:  # fmt: skip
    """Put a model behind the strategy and the optimizer that training uses; its weights are drawn anew.

    Args:
        model: On any device.
        device: Where it will be.
        recompute: As train.recompute.
        precision: As train.precision.
        words: Token ids of the training set, ascending: the rows of the embedding that a run trains; None: all.
    """
    config = Config()
    config.train.precision = precision
    model.roberta.encoder.recompute = recompute
    source = model.source(None, seed=0)
    if words is not None and len(words) < model.config.vocab_size:
        train_rows(model, source, words)
    blueprint = Blueprint(
        model=model.to(device),
        block=XLMRobertaXLLayer,
        source=source,
        make_optimizer=OptimizerPlan(config.optimizer, model).build,
    )
    return make_strategy(config, World(device=device), blueprint)


def our_step(strategy: Strategy, batches: Sequence[Batch]) -> float:
    """Make one optimizer step as the trainer does and return the mean loss."""
    targets = sum(batch.num_targets for batch in batches)
    scale = torch.tensor(1.0 / targets).to(strategy.world.device, non_blocking=True)
    total = torch.zeros((), dtype=torch.float64, device=strategy.world.device)
    for index, batch in enumerate(batches):
        inputs = batch.to(strategy.world.device).inputs
        total += strategy.accumulate(inputs, scale, last=index == len(batches) - 1)
    strategy.step(1e-5)
    return float(total) / targets
