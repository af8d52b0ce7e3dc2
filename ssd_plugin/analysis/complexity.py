"""What a model costs: its priors, its parameters, its multiply-accumulate operations."""

from __future__ import annotations

from typing import NamedTuple

from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

from ssd_plugin.analysis.prior_grid import build_on_meta, featmap_sizes


class Complexity(NamedTuple):
    """Size and cost of a detector, for one image of its input size."""

    input_size: tuple[int, int]  # (w, h) in pixels
    num_priors: int  # P
    num_parameters: int
    num_macs: int  # of convolutions and matrix products; without NMS and element-wise operations


def measure_complexity(cfg: Config) -> Complexity:
    """Count a detector's priors, parameters and operations, computing nothing.

    Its test pipeline has a ``Resize`` to the input size. Its weights are not loaded.
    """
    model, size = build_on_meta(cfg)
    with FlopCounterMode(display=False) as counter:
        sizes = featmap_sizes(model, size)
    priors = model.bbox_head.prior_generator.grid_priors(sizes, device='cpu')
    return Complexity(
        size,
        sum(map(len, priors)),
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() // 2,  # it counts a multiplication and an addition as two
    )
