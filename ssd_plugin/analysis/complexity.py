"""What a model costs: its priors, its parameters, its multiply-accumulate operations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.flop_counter import FlopCounterMode

from ssd_plugin.datasets.config import input_size


class Complexity(NamedTuple):
    """Of a detector, for one image of its input size."""

    input_size: tuple[int, int]  # (w, h) in pixels
    num_priors: int  # P
    num_parameters: int
    num_macs: int  # of convolutions and matrix products, NMS and element-wise steps left out


def measure_complexity(cfg: Config) -> Complexity:
    """Count without computing: on PyTorch's meta device, where tensors have shapes only.

    Args:
        cfg: Config of a detector with a prior generator, whose test pipeline has a ``Resize`` to
            the input size. Its weights are not loaded.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    width, height = input_size(cfg)
    model = MODELS.build(cfg.model).eval()
    head = model.bbox_head
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps, *_ = model.to('meta')(torch.empty(1, 3, height, width, device='meta'), mode='tensor')
    sizes = [tuple(scores.shape[-2:]) for scores in maps]
    priors = head.prior_generator.grid_priors(sizes, device='cpu')
    return Complexity(
        (width, height),
        sum(map(len, priors)),
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() // 2,  # it counts a multiplication and an addition as two
    )
