"""Linear layers whose products in training are of float8 factors, by torchao; evaluation computes as always."""

from torch import Tensor, nn
from torch.nn import functional
from torchao.float8 import Float8LinearConfig
from torchao.float8.float8_linear import Float8Linear

from xlmrxl_train.model.layers import matmul_dtype


class TrainingFloat8Linear(Float8Linear):  # type: ignore[misc]
    """A linear layer that scales input, weight and the output's gradient by their largest value of each call."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the product in the dtype that it would have without float8."""
        input = input.to(matmul_dtype(self, input))
        output: Tensor
        output = super().forward(input) if self.training else functional.linear(input, self.weight, self.bias)
        return output


def use_float8(layer: nn.Module, *, emulate: bool = False) -> None:
    """Replace the linear layers inside of `layer`; parameters and their names stay.

    Args:
        layer: Anywhere, also on the meta device.
        emulate: Round to float8 and multiply in float32, on any device: for tests.
    """
    # A packed batch has any number of tokens, where the hardware wants a multiple of 16.
    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    for module in list(layer.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, TrainingFloat8Linear.from_float(child, config).train(child.training))
