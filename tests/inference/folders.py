"""Small models in folders, with a tokenizer, for our pipelines and transformers' alike."""

from pathlib import Path

import torch

from tests.data.small_tokenizer import small_backend
from tests.model.reference import configuration_of, our_class, randomize
from xlmrxl_train.data.tokenizer import Tokenizer

SAMPLE = Path(__file__).parents[2] / "xlmrxl_train/data/sample"
UNUSED_ROWS = 7  # of the vocabulary, as XLM-R XL has them


def saved(folder: Path, head: str, *, tokenizer: Tokenizer | None = None, **overrides: object) -> Path:
    """Write a model with random weights, large enough to matter, and its tokenizer; return the folder."""
    tokenizer = tokenizer or Tokenizer(small_backend())
    values = {"vocab_size": len(tokenizer) + UNUSED_ROWS, "max_position_embeddings": 66} | overrides
    torch.manual_seed(0)
    model = our_class(head)(configuration_of(head, "tiny", **values)).eval()
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder
