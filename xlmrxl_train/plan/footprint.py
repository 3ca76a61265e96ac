"""What a micro-batch takes beside weights, gradients and moments: found out by running it on tensors without memory.

The model's own code runs, forward and backward, on torch's fake tensors: every tensor that it makes has a size and a
life, and nothing is computed. So whatever a layer keeps, is counted: dropout's masks, attention by length groups,
recomputation, adapters. Layers are alike, so two depths say what all of them would take.
"""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.flop_counter import flop_registry

from xlmrxl_train.model.attention import choose_backend, make_layout
from xlmrxl_train.model.embedding import XLMRobertaXLEmbeddings
from xlmrxl_train.model.encoder import LayerContext, XLMRobertaXLEncoder
from xlmrxl_train.model.layers import Dropout
from xlmrxl_train.model.rounded_linear import RoundedLinear
from xlmrxl_train.parallel.blueprint import homes_of, put
from xlmrxl_train.parallel.strategy import autocast, forward_dtype
from xlmrxl_train.plan.live import LiveTensors

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes that one micro-batch takes on one rank, and what it computes."""

    kept: float  # by forward for backward
    forward: float  # the most at once until the loss is there
    backward: float  # the most at once from then on, until all layers are done
    end: float  # the most at once after that: the embedding's gradient
    flops: float  # of matrix products, forward and backward, what is computed twice counted twice

    @property
    def layers(self) -> float:
        """The most at once while the layers run."""
        return max(self.forward, self.backward)

    def towards(self, other: "Footprint", times: float) -> "Footprint":
        """Return what lies on the straight line from this one to another, or beyond it."""
        values = {item.name: float(getattr(self, item.name)) for item in fields(Footprint)}
        return Footprint(**{name: here + times * (float(getattr(other, name)) - here) for name, here in values.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a footprint depends on beside the model and its inputs."""

    precision: str = "bf16"
    recompute: str = "none"
    divided: bool = False
    """Whether the engine hands forward weights in the dtype of products, and not autocast float32 ones."""
    cuda: bool = False
    attention: str = "auto"


def footprint(outline: nn.Module, inputs: dict[str, Any], setting: Setting) -> Footprint:
    """Return what forward and backward of a micro-batch take.

    Args:
        outline: The whole model on the meta device; it is not changed.
        inputs: Keyword arguments of its forward, on the CPU.
        setting: How it runs.
    """
    encoder = next(module for module in outline.modules() if isinstance(module, XLMRobertaXLEncoder))
    depth = len(encoder.layer)
    period = int(setting.recompute.removeprefix("every_")) if setting.recompute.startswith("every_") else 1
    low = min(depth, 2 + (depth - 2) % period)  # the last layer, which may be another, is recomputed or not as in all
    if low + period >= depth or not _alike(encoder):
        return _run(outline, depth, inputs, setting)
    first, second = _run(outline, low, inputs, setting), _run(outline, low + period, inputs, setting)
    return first.towards(second, (depth - low) / period)


def _alike(encoder: XLMRobertaXLEncoder) -> bool:
    """Whether all layers have parameters of the same shapes, trained or not."""
    kinds = {
        tuple((name, parameter.shape, parameter.requires_grad) for name, parameter in layer.named_parameters())
        for layer in encoder.layer
    }
    return len(kinds) == 1


def _run(outline: nn.Module, depth: int, inputs: dict[str, Any], setting: Setting) -> Footprint:
    """Run the model with its first `depth` layers."""
    model = deepcopy(outline).train()
    for module in list(model.modules()):
        if isinstance(module, XLMRobertaXLEncoder):
            module.layer = module.layer[:depth]
            module.recompute = setting.recompute
            if setting.cuda:
                module.register_forward_pre_hook(_attend_as_on_cuda(setting), with_kwargs=True)
        for name, child in module.named_children():
            if setting.cuda and type(child) is Dropout:
                setattr(module, name, _FusedDropout(child.p))
        if isinstance(module, RoundedLinear):  # its matrix is made when a file is read
            module.dequantize = partial(_unrounded, module, setting)  # type: ignore[method-assign]
    products = forward_dtype(setting.precision)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for parameter, homes in homes_of(model).values():
            whole = parameter.requires_grad and not setting.divided
            fake = nn.Parameter(
                torch.empty(parameter.shape, dtype=torch.float32 if whole else products),
                requires_grad=parameter.requires_grad,
            )
            fake.grad = torch.empty_like(fake) if fake.requires_grad else None
            put(fake, homes)
        parameters = list(model.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        with _Work([*parameters, *gradients]) as live:
            peaks = _watch_embeddings(model, live)
            with nullcontext() if setting.divided else autocast(setting.precision, CPU):
                loss_sum: Tensor = model(**inputs).loss_sum
            kept, forward = live.alive, live.begin_anew()
            loss_sum.backward()
            end = live.begin_anew()
            return Footprint(kept=kept, forward=forward, backward=max(peaks or [end]), end=end, flops=live.flops)


def _unrounded(linear: RoundedLinear, setting: Setting) -> Tensor:
    return torch.empty(linear.out_features, linear.in_features, dtype=forward_dtype(setting.precision))


# Matrix products of an operator, and which arguments are its queries and the longest sequence's number of keys.
_FLASH = {"_flash_attention_forward": (2, 0, 6), "_flash_attention_backward": (5, 1, 9)}


class _Work(LiveTensors):
    """Counts multiplications and additions of matrix products too; torch's own counter keeps what is computed twice."""

    flops = 0.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        name = function.overloadpacket.__name__.rstrip("_")  # baddbmm_ computes what baddbmm does
        if name in _FLASH:  # torch's own count reads a tensor of offsets, and nothing is in it here
            products, query, longest = _FLASH[name]
            self.flops += 2.0 * products * args[query].numel() * args[longest]  # at most: all sequences as the longest
        elif (count := flop_registry.get(getattr(torch.ops.aten, name, None))) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


def _watch_embeddings(model: nn.Module, live: LiveTensors) -> list[int]:
    """Return a list that gets the peak when backward reaches the embeddings, from which on it begins anew."""
    peaks: list[int] = []

    def reached(gradient: Tensor) -> None:
        peaks.append(live.begin_anew())

    def look(module: nn.Module, arguments: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(reached)

    for module in model.modules():
        if isinstance(module, XLMRobertaXLEmbeddings):
            module.register_forward_hook(look)
    return peaks


class _FusedDropout(nn.Module):
    """CUDA's dropout, which keeps a byte per element; ours on CPUs keeps a factor."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` with elements dropped."""
        output: Tensor = torch.native_dropout(features, self.p, True)[0] if self.p else features
        return output


def _attend_as_on_cuda(setting: Setting) -> Any:
    """Return a hook that puts attention's backend as CUDA would choose it in place of the CPU's."""

    def replaced(encoder: nn.Module, arguments: Any, named: dict[str, Any]) -> Any:
        hidden_TD, context, *rest = arguments
        assert isinstance(context, LayerContext) and isinstance(encoder, XLMRobertaXLEncoder)
        attention = encoder.get_submodule("layer.0.attention.self")
        head_size = hidden_TD.shape[-1] // int(attention.num_attention_heads)  # type: ignore[arg-type]
        dtype = forward_dtype(setting.precision)
        backend = choose_backend(setting.attention, torch.device("cuda"), dtype, head_size, wants_weights=False)
        layout = context.layout
        if backend == layout.backend:
            return None
        first = context.first_layout
        with unset_fake_temporarily():  # how sequences lie is computed
            layout = make_layout(backend, layout.queries, causal=layout.causal)
            if first is not None:
                first = make_layout(backend, first.queries, layout.queries)
        return (hidden_TD, replace(context, layout=layout, first_layout=first), *rest), named

    return replaced
