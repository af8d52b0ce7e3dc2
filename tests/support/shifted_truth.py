"""A detector whose mistakes are known: it finds what is there, a little beside it."""

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import InstanceData


@MODELS.register_module()
class ShiftedTruth(BaseModel):
    """Moves each side of an object's box by up to 30 % of its length, and draws its score.

    Both follow from the image alone.
    """

    def __init__(self):
        super().__init__(dict(type='DetDataPreprocessor'))
        self.weight = torch.nn.Parameter(torch.zeros(1))  # so that there is one to load

    def forward(self, inputs, data_samples, mode='predict'):
        for sample in data_samples:
            truth = sample.gt_instances
            generator = torch.Generator().manual_seed(int(sample.img_id))
            bboxes = getattr(truth.bboxes, 'tensor', truth.bboxes)  # (n, 4)
            sizes = (bboxes[:, 2:] - bboxes[:, :2]).repeat(1, 2)
            shifts = 0.6 * (torch.rand(bboxes.shape, generator=generator) - 0.5)
            # In pixels of the image, as test pipelines load annotations after resizing.
            bboxes = bboxes + sizes * shifts
            scores = torch.rand(len(bboxes), generator=generator)
            sample.pred_instances = InstanceData(bboxes=bboxes, labels=truth.labels, scores=scores)
        return data_samples
