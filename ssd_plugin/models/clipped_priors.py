"""Default boxes whose centres stay inside the input, as two other implementations have them."""

from __future__ import annotations

from typing import Any

from mmdet.registry import TASK_UTILS
from torch import Tensor

from ssd_plugin.models.priors import SSDPriorGenerator


@TASK_UTILS.register_module()
class CenterClippedPriorGenerator(SSDPriorGenerator):
    """Priors of ssd.pytorch and lufficc/SSD: ``SSDPriorGenerator``'s, with centres clipped.

    Strides may reach beyond the input, as 10 cells of 32 pixels do in SSD300. The centres of the
    last row and column, at 304, move to the input's border at 300. Caffe and torchvision leave
    them where they are. Arguments are those of ``SSDPriorGenerator``.
    """

    def single_level_grid_priors(self, *args: Any, **kwargs: Any) -> Tensor:
        """Priors of one level, (h * w * A, 4); see :meth:`grid_priors`."""
        priors = super().single_level_grid_priors(*args, **kwargs)
        centre = (priors[:, :2] + priors[:, 2:]) / 2
        inside = centre.clamp(min=0).minimum(centre.new_tensor(self.input_size))
        return priors + (inside - centre).repeat(1, 2)
