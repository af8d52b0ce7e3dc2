"""Ground-truth boxes and priors to fit to them."""

from collections import Counter

import numpy as np
from mmdet.registry import TASK_UTILS

from ssd_plugin.analysis.fit_priors.boxes import TrainingBoxes
from ssd_plugin.analysis.prior_grid import PriorGrid
from tests.support.helpers import TINY, prior_config


def make_boxes(bboxes, labels=None, images=None, classes=('thing',)):
    bboxes = np.array(bboxes, dtype=np.float64).reshape(-1, 4)
    zeros = np.zeros(len(bboxes), dtype=np.int64)
    labels = zeros if labels is None else np.array(labels)
    images = zeros if images is None else np.array(images)
    number = int(images.max(initial=0)) + 1
    return TrainingBoxes(bboxes, labels, images, classes, number, Counter())


def tiny_grid(**changes):
    sizes = [(n, n) for n in TINY['feature_sizes']]
    generator = TASK_UTILS.build(prior_config(TINY, **changes))
    return PriorGrid(generator, sizes, (TINY['input_size'],) * 2)
