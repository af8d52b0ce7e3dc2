"""Where it costs nothing to look at a tensor's values."""

from __future__ import annotations

import torch
from torch import Tensor

if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling
else:  # PyTorch 2.1
    from torch._utils import is_compiling


def values_are_free(tensor: Tensor) -> bool:
    """Whether Python may look at values of a tensor without waiting for anything.

    On the CPU it may, and does only what is needed: so many rounds, so many rows. An accelerator
    would have to finish all that has been queued first, and a compiled graph would break; there
    the same result is computed by steps whose shapes do not depend on values.
    """
    return tensor.device.type == 'cpu' and not is_compiling()
