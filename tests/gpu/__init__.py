"""What only a GPU shows; without one everything here is skipped. `make gpu` runs it."""

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
