"""Post-processing: the numbers of two tests of Caffe's SSD branch.

They are `test_bbox_util.cpp` and `test_detection_output_layer.cpp`. Boxes are shares of the image.
Left out are images that are padded or fitted by their smaller side (in `TestOutputBBox`), which no
config's pipeline makes, and overlaps that are reused, which only saves Caffe time.
"""

import pytest
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder

from ssd_plugin.models.boxes import DeltaCoder
from ssd_plugin.models.postprocess import detect
from tests.support.helpers import tiny_head

CODER = DeltaCoder(DeltaXYWHBBoxCoder())
BELOW_ALL = -1  # a threshold for scores, of which 0 is one


def detections(scores, boxes, nms_threshold, top_k=-1, score_thr=BELOW_ALL, borders=None):
    """(score, box) of each detection by image, of scores (B, P) and boxes (B, P, 4) of a class."""
    scores, boxes = torch.tensor(scores), torch.tensor(boxes)
    deltas = torch.stack([CODER.encode(boxes[0], image) for image in boxes])
    cfg = dict(score_thr=score_thr, nms_pre=top_k, max_per_img=200)
    cfg.update(nms=dict(type='nms', iou_threshold=nms_threshold))
    found = detect(scores.unsqueeze(-1), deltas, boxes[0], CODER, cfg, borders)
    return [list(zip(image.scores.tolist(), image.bboxes.tolist(), strict=True)) for image in found]


def assert_same(found, expected):
    """The same scores and boxes in the same order."""
    assert len(found) == len(expected)
    for (score, box), (expected_score, expected_box) in zip(found, expected):
        assert score == pytest.approx(expected_score, abs=1e-6)
        assert box == pytest.approx(expected_box, abs=1e-6)


NMS_BOXES = [[0.1, 0.1, 0.3, 0.3], [0.2, 0.1, 0.4, 0.3], [0.2, 0.0, 0.4, 0.2], [0.1, 0.2, 0.4, 0.4]]
NMS_SCORES = [0.8, 0.7, 0.4, 0.5]


@pytest.mark.parametrize(
    ('options', 'kept'),
    [
        (dict(nms_threshold=0.3), [0, 3, 2]),
        (dict(nms_threshold=0.3, top_k=2), [0]),
        (dict(nms_threshold=0.2, top_k=3), [0]),
        (dict(nms_threshold=0.2, score_thr=0.5), [0]),
    ],
)
def test_nms_keeps_the_best_boxes_that_overlap_no_better_one(options, kept):
    """`TestApplyNMS` and `TestApplyNMSFast`: of all, of the top 2 or 3, of scores above 0.5."""
    (found,) = detections([NMS_SCORES], [NMS_BOXES], **options)
    assert_same(found, [(NMS_SCORES[i], NMS_BOXES[i]) for i in kept])


def test_boxes_compete_within_their_image():
    """`TestComputeOverlapped`: in each of two images both boxes overlap by a third."""
    boxes = [NMS_BOXES[:2], [NMS_BOXES[2], NMS_BOXES[1]]]
    first, second = detections([[0.9, 0.8], [0.7, 0.6]], boxes, nms_threshold=0.3)
    assert_same(first, [(0.9, NMS_BOXES[0])])
    assert_same(second, [(0.7, NMS_BOXES[2])])


def test_boxes_are_clipped_to_the_image():
    """`TestClipBBox`."""
    boxes = [[0.2, 0.3, 0.3, 0.5], [-0.2, -0.3, 1.3, 1.5]]
    (found,) = detections([[0.9, 0.8]], [boxes], 0.45, borders=torch.ones(1, 4))
    assert_same(found, [(0.9, boxes[0]), (0.8, [0, 0, 1, 1])])


def test_boxes_come_in_pixels_of_the_original_image():
    """`TestOutputBBox`: (-0.1, 0.3, 0.3, 0.5) of an image of 500 x 300, stretched to 300 x 300."""
    generator = dict(type='SSDPriorGenerator', strides=[300], ratios=[[]])
    generator.update(min_sizes=[60], max_sizes=[[]], input_size=300)
    head = tiny_head(num_classes=1, in_channels=[8], anchor_generator=generator)
    prior, box = torch.tensor([[120.0, 120, 180, 180], [-30, 90, 90, 150]]).split(1)
    maps = (
        [torch.tensor([9.0, 0]).view(1, 2, 1, 1)],
        [head.sync_free_coder.encode(prior, box)[..., None, None]],
    )
    meta = dict(img_shape=(300, 300), scale_factor=(300 / 500, 300 / 300))
    (found,) = head.predict_by_feat(*maps, [meta], rescale=True)
    assert found.bboxes.tolist() == [pytest.approx([0, 90, 150, 150], abs=1e-4)]


def moved(shift):
    """The four priors, moved towards the middle."""
    near, far = 0.10 + shift, 0.60 - shift
    return [[x, y, x + 0.3, y + 0.3] for y in (near, far) for x in (near, far)]


# For each class by its number: how far the boxes of both images are moved, and their scores.
CLASSES = [
    (0.05, 0.15, [[0.0, 0.2, 0.4, 0.6], [1.0, 0.8, 0.6, 0.4]]),
    (0.10, 0.20, [[1.0, 0.8, 0.6, 0.4], [0.0, 0.2, 0.4, 0.6]]),
]
SHARED = (0.05, 0.15, CLASSES[1][2])  # the only class, with the boxes of class 0


@pytest.mark.parametrize(
    ('detector', 'expected'),
    [
        (
            SHARED,
            [
                [
                    (1.0, [0.15, 0.15, 0.45, 0.45]),
                    (0.8, [0.55, 0.15, 0.85, 0.45]),
                    (0.6, [0.15, 0.55, 0.45, 0.85]),
                    (0.4, [0.55, 0.55, 0.85, 0.85]),
                ],
                [(0.6, [0.45, 0.45, 0.75, 0.75]), (0.0, [0.25, 0.25, 0.55, 0.55])],
            ],
        ),
        (
            CLASSES[0],
            [
                [
                    (0.6, [0.55, 0.55, 0.85, 0.85]),
                    (0.4, [0.15, 0.55, 0.45, 0.85]),
                    (0.2, [0.55, 0.15, 0.85, 0.45]),
                    (0.0, [0.15, 0.15, 0.45, 0.45]),
                ],
                [(1.0, [0.25, 0.25, 0.55, 0.55]), (0.4, [0.45, 0.45, 0.75, 0.75])],
            ],
        ),
        (
            CLASSES[1],
            [
                [
                    (1.0, [0.20, 0.20, 0.50, 0.50]),
                    (0.8, [0.50, 0.20, 0.80, 0.50]),
                    (0.6, [0.20, 0.50, 0.50, 0.80]),
                    (0.4, [0.50, 0.50, 0.80, 0.80]),
                ],
                [(0.6, [0.40, 0.40, 0.70, 0.70])],
            ],
        ),
    ],
    ids=['ShareLocation', 'NoShareLocation, class 0', 'NoShareLocation, class 1'],
)
def test_detections_are_what_nms_leaves_of_all_or_of_the_top_two(detector, expected):
    """`TestForward...` and `TestForward...TopK`, whose shifts of corners are the boxes here.

    Detectors whose classes have boxes of their own (`NoShareLocation`) are taken class by class.
    """
    shift, other, scores = detector
    boxes = [moved(shift), moved(other)]
    for found, image in zip(detections(scores, boxes, nms_threshold=0.1), expected):
        assert_same(found, image)
    top_two = detections(scores, boxes, nms_threshold=0.1, top_k=2)
    assert_same(top_two[0], expected[0][:2])
    assert_same(top_two[1], expected[1][:1])
