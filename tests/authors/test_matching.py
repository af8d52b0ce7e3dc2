"""Matching: the numbers of Caffe's `test_bbox_util.cpp`, `TestMatchBBox...`.

Caffe matches with -1 what it does not match, and counts boxes from 0; `gt_inds` has 0 there, and
counts from 1.
"""

import pytest
import torch
from mmengine.structures import InstanceData

from ssd_plugin.models.assigner import BatchMaxIoUAssigner

BOXES, LABELS = [[0.1, 0.1, 0.3, 0.3], [0.3, 0.3, 0.6, 0.5]], [1, 2]
PRIORS = [  # IoU with the first and with the second box
    [0.1, 0.0, 0.4, 0.3],  # 4/9, 0
    [0.0, 0.1, 0.2, 0.3],  # 2/6, 0
    [0.2, 0.1, 0.4, 0.4],  # 2/8, 1/11
    [0.4, 0.3, 0.7, 0.5],  # 0, 4/8
    [0.5, 0.4, 0.7, 0.7],  # 0, 1/11
    [0.7, 0.7, 0.8, 0.8],  # 0, 0
]
NONE = 1.1  # an IoU that no pair reaches: bipartite matching alone
ONE_BOX = [4 / 9, 2 / 6, 2 / 8, 0, 0, 0]
BOTH_BOXES = [4 / 9, 2 / 6, 2 / 8, 4 / 8, 1 / 11, 0]


@pytest.mark.parametrize(
    ('count', 'threshold', 'gt_inds', 'overlaps'),
    [
        (1, NONE, [1, 0, 0, 0, 0, 0], ONE_BOX),
        (2, NONE, [1, 0, 0, 2, 0, 0], BOTH_BOXES),
        (1, 0.3, [1, 1, 0, 0, 0, 0], ONE_BOX),
        (2, 0.3, [1, 1, 0, 2, 0, 0], BOTH_BOXES),
        (2, 0.001, [1, 1, 1, 2, 2, 0], BOTH_BOXES),
    ],
    ids=[
        'OneBipartite',
        'AllBipartite',
        'OnePerPrediction',
        'AllPerPrediction',
        'AllPerPredictionEx',
    ],
)
def test_each_box_has_its_best_prior_and_others_from_the_threshold(
    count, threshold, gt_inds, overlaps
):
    """`TestMatchBBoxLable...`; "one" label is the first box alone."""
    truth = InstanceData(bboxes=torch.tensor(BOXES[:count]), labels=torch.tensor(LABELS[:count]))
    assigner = BatchMaxIoUAssigner(pos_iou_thr=threshold, neg_iou_thr=threshold)
    result = assigner.assign(InstanceData(priors=torch.tensor(PRIORS)), truth)
    assert result.gt_inds.tolist() == gt_inds
    assert result.labels.tolist() == [LABELS[g - 1] if g else -1 for g in gt_inds]
    torch.testing.assert_close(result.max_overlaps, torch.tensor(overlaps), rtol=0, atol=1e-6)
