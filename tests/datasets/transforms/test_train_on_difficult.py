"""TrainOnDifficult: boxes marked "difficult" become ground truth, in training only."""

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.registry import init_default_scope

BOXES = [(0, 0, 10, 10), (5, 5, 20, 30)]


def pipeline(*extra):
    init_default_scope('mmdet')
    steps = [dict(type='LoadAnnotations', with_bbox=True), *extra, dict(type='PackDetInputs')]
    return TRANSFORMS.build(dict(type='Compose', transforms=steps))


def annotated():
    instances = [
        dict(bbox=list(box), bbox_label=label, ignore_flag=label) for label, box in enumerate(BOXES)
    ]
    image = dict(img=np.zeros((40, 40, 3), np.uint8), img_shape=(40, 40), ori_shape=(40, 40))
    return dict(image, img_id=0, img_path='', instances=instances)


def test_difficult_boxes_are_trained_on_which_mmdetection_ignores():
    packed = pipeline(dict(type='TrainOnDifficult'))(annotated())['data_samples']
    assert packed.gt_instances.bboxes.tensor.tolist() == [list(box) for box in BOXES]
    assert packed.gt_instances.labels.tolist() == [0, 1]
    assert len(packed.ignored_instances) == 0
    packed = pipeline()(annotated())['data_samples']
    assert packed.gt_instances.labels.tolist() == [0]
    assert packed.ignored_instances.labels.tolist() == [1]


def test_images_without_boxes_pass_and_annotations_must_be_loaded_before():
    packed = pipeline(dict(type='TrainOnDifficult'))(dict(annotated(), instances=[]))
    assert len(packed['data_samples'].gt_instances) == 0
    with pytest.raises(KeyError, match='gt_ignore_flags'):
        TRANSFORMS.build(dict(type='TrainOnDifficult'))(annotated())


def test_the_flags_keep_their_type_and_the_annotations_stay_as_they_were():
    flags = np.array([True, False])
    transform = TRANSFORMS.build(dict(type='TrainOnDifficult'))
    cleared = transform(dict(gt_ignore_flags=flags))['gt_ignore_flags']
    assert cleared.dtype == bool and cleared.tolist() == [False, False]
    assert flags.tolist() == [True, False]
    assert repr(transform) == 'TrainOnDifficult()'
