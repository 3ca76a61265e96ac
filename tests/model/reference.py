"""Pairs of models with equal weights, ours and transformers', and batches to feed both."""

from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from xlmrxl_train import model as ours

PAD = 1
SIZES = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "odd": {"hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 50},
}
HEADS = ("MaskedLM", "CausalLM", "SequenceClassification", "MultipleChoice", "TokenClassification", "QuestionAnswering")


def configuration(size: str = "tiny", **overrides: object) -> ours.XLMRobertaXLConfig:
    """Return a small configuration without dropout and with weights large enough to matter."""
    values = {
        "vocab_size": 97, "max_position_embeddings": 66, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1, "num_labels": 3,
    }  # fmt: skip
    return ours.XLMRobertaXLConfig(**{**values, **SIZES[size], **overrides})  # type: ignore[arg-type]


def configuration_of(head: str, size: str = "tiny", **overrides: object) -> ours.XLMRobertaXLConfig:
    """Return the configuration that suits a head."""
    needs: dict[str, dict[str, object]] = {"CausalLM": {"is_decoder": True}, "QuestionAnswering": {"num_labels": 2}}
    return configuration(size, **{**needs.get(head, {}), **overrides})


def our_class(head: str) -> type[ours.PreTrained]:
    """Return our class of a head, or the bare model for ""."""
    return getattr(ours, f"XLMRobertaXLFor{head}" if head else "XLMRobertaXLModel")  # type: ignore[no-any-return]


def their_class(head: str) -> type:
    """Return transformers' class."""
    return getattr(transformers, f"XLMRobertaXLFor{head}" if head else "XLMRobertaXLModel")  # type: ignore[no-any-return]


def randomize(module: nn.Module) -> None:
    """Make biases and norms differ from 0 and 1, so that their use is tested too."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("token_type_embeddings.weight"):
                parameter.normal_()


def pair(
    folder: Path, head: str, config: ours.XLMRobertaXLConfig, implementation: str = "eager"
) -> tuple[ours.PreTrained, nn.Module]:
    """Build our model with random weights and load transformers' from what it saves."""
    torch.manual_seed(0)
    mine = our_class(head)(config).eval()
    randomize(mine)
    mine.save_pretrained(folder)
    theirs = their_class(head).from_pretrained(folder, attn_implementation=implementation).eval()
    return mine, theirs


def padded_batch(lengths: list[int], *, side: str = "right", width: int | None = None) -> tuple[Tensor, Tensor]:
    """Return random token ids and their mask."""
    width = width or max(lengths)
    ids, mask = torch.full((len(lengths), width), PAD), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, place] = torch.randint(3, 97, (length,))
        mask[row, place] = 1
    return ids, mask


def difference(mine: Tensor, theirs: Tensor, mask: Tensor | None = None) -> float:
    """Return the largest difference, at real tokens only if there is a mask [batch, length]."""
    gap = (mine.float() - theirs.float()).abs()
    if mask is not None:
        gap = gap[mask.bool()]
    return gap.max().item()


def compare_gradients(mine: nn.Module, theirs: nn.Module, tolerance: float = 1e-5) -> None:
    """Assert that every parameter's gradient is equal, measured by the whole model's gradient norm."""
    reference = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    norm = torch.stack([grad.norm() for grad in reference.values() if grad is not None]).norm()
    assert norm > 0
    names = [name for name, _ in mine.named_parameters()]
    assert names == list(reference)
    for name, parameter in mine.named_parameters():
        grad, expected = parameter.grad, reference[name]
        if expected is None or grad is None:
            assert expected is None or expected.abs().max() == 0, name
            assert grad is None or grad.abs().max() == 0, name
            continue
        assert (grad - expected).norm() <= tolerance * norm, name
