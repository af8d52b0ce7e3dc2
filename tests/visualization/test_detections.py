"""Boxes and labels, found again in the pixels of what is drawn."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.structures import InstanceData

from ssd_plugin.visualization.detections import draw, draw_boxes, label_places
from ssd_plugin.visualization.fonts import FONT, OpenCVFont, PillowFont
from ssd_plugin.visualization.style import BLACK, BLUE, GREEN, ORANGE
from tests.support.commands import ROOT

CLASSES = ('cat', 'dog & co', 'a$b')
BLUE_BGR, ORANGE_BGR = (178, 114, 0), (0, 159, 230)
FONTS = [PillowFont] + [OpenCVFont] * hasattr(cv2, 'FontFace')


def grey(width, height):
    return np.full((height, width, 3), 128, np.uint8)


def found(*detections):
    """Detections (x1, y1, x2, y2, score, label), the surest first."""
    table = np.array(detections, np.float32).reshape(-1, 6)
    labels = table[:, 5].astype(np.int64)
    return InstanceData(bboxes=table[:, :4], scores=table[:, 4], labels=labels)


@pytest.mark.parametrize('size', [(320, 240), (1600, 1200), (4000, 3000)])
def test_boxes_are_drawn_where_they_are(size):
    plain, (width, height) = grey(*size), size
    box = np.array([0.3 * width, 0.4 * height, 0.8 * width, 0.9 * height])
    drawn = draw(plain, found((*box, 0.9, 0), (0, 0, width, height, 0.5, 1)), CLASSES)
    assert drawn.shape == plain.shape and drawn.dtype == np.uint8
    assert (plain == 128).all(), 'the image itself has changed'
    blue, orange = ((drawn == bgr).all(axis=2) for bgr in (BLUE_BGR, ORANGE_BGR))
    x1, y1, x2, y2 = box.round().astype(int)
    below = y1 + height // 10  # the label
    assert blue[below : y2 + 1, [x1, x2]].all() and blue[y2, x1 : x2 + 1].all()
    assert orange[-1].all() and orange[height // 10 :, [0, -1]].all()
    inside = drawn[below : y2 - height // 30, x1 + width // 30 : x2 - width // 30]
    assert (inside == 128).all()
    stroke = blue[(y1 + y2) // 2, : (x1 + x2) // 2].sum()
    assert size[0] / 320 <= stroke <= size[0] / 100  # and wider on a larger image


def test_nothing_found_nothing_drawn():
    plain = grey(200, 100)
    drawn = draw(plain, found(), CLASSES)
    assert np.array_equal(drawn, plain) and not np.shares_memory(drawn, plain)


def test_what_comes_first_lies_on_top():
    boxes = [[20, 40, 80, 80]] * 2
    drawn = draw_boxes(grey(100, 100), boxes, ['', ''], [BLUE, ORANGE])
    assert tuple(drawn[79, 50]) == BLUE_BGR


def test_a_box_without_a_text_has_no_label():
    drawn = draw_boxes(grey(100, 100), [[20, 40, 80, 80]] * 2, ['', 'a'], [BLUE, ORANGE])
    assert not (drawn == BLUE_BGR).all(axis=2)[:39].any()
    assert (drawn == ORANGE_BGR).all(axis=2)[:39].any()


def test_labels_cover_neither_each_other_nor_leave_the_image():
    boxes = [[10, 30, 60, 80], [12, 30, 62, 80], [10, 32, 60, 82], [0, 0, 20, 20], [90, 90, 99, 99]]
    width, height = 30, 8
    places = label_places(boxes, [(width, height)] * len(boxes), (100, 100))
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= 100 - width and 0 <= y <= 100 - height
        assert all(abs(x - a) >= width or abs(y - b) >= height for a, b in places[:i])
    assert tuple(places[0]) == (10, 22)  # above its box


@pytest.mark.parametrize(
    'box', [(0, 0, 9, 9), (300, 0, 320, 20), (0, 220, 9, 240), (318, 238, 400, 400)]
)
def test_a_label_at_the_border_is_as_large_as_in_the_middle(box):
    def sides(box):
        """Width and height of the label, whose background is the only green."""
        drawn = draw_boxes(grey(320, 240), [box, box], ['', 'a label'], [BLACK, GREEN])
        rows, columns = (drawn == (115, 158, 0)).all(axis=2).nonzero()
        return np.ptp(rows), np.ptp(columns)

    assert sides(box) == pytest.approx(sides((150, 110, 159, 119)), abs=2)


@pytest.mark.parametrize('color, bgr, letters', [(BLUE, BLUE_BGR, 255), (ORANGE, ORANGE_BGR, 0)])
def test_letters_lie_within_their_label_light_on_dark_and_dark_on_light(color, bgr, letters):
    drawn = draw_boxes(grey(320, 240), [[150, 110, 159, 119]], ['Hg 0.5'], [color])[:110]
    rows, columns = (drawn != 128).any(axis=2).nonzero()  # the label, above the box
    label = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    rim = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    assert (rim == bgr).all()
    assert (label == letters).all(axis=2).any()


@pytest.mark.parametrize('size', [10, 21, 76])
@pytest.mark.parametrize('font', FONTS)
def test_letters_are_as_large_as_matplotlibs(font, size):
    font, text, white = font(), 'traffic 0.93', np.full((200, 1000, 3), 255, np.uint8)
    font.write(white, text, (50, 150), size, 0)
    rows, columns = (white[..., 0] < 128).nonzero()
    (left, bottom), (right, top) = (
        TextPath((50, 0), text, size, FontProperties(family='DejaVu Sans'))
        .get_extents()
        .get_points()
    )
    few = 1.5 + 0.03 * size
    assert (columns.min(), rows.min()) == pytest.approx((left, 150 - top), abs=few)
    assert (columns.max(), rows.max()) == pytest.approx((right, 150 - bottom), abs=3 * few)
    assert font.width(text, size) == pytest.approx(right - 50, abs=3 * few)
    assert len(np.unique(white)) > 20, 'anti-aliased'


@pytest.mark.parametrize('font', FONTS)
def test_black_and_white_letters_blend_with_their_background(font):
    for background, color in ((200, 0), (50, 255)):
        drawn = np.full((40, 100, 3), background, np.uint8)
        font().write(drawn, 'a 0.5', (5, 30), 20, color)
        extremes = {int(drawn.min()), int(drawn.max())}
        assert extremes == {background, color}


BOXES = st.lists(st.lists(st.floats(width=32), min_size=4, max_size=4), max_size=4)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=60)  # half surrogates, too


@settings(deadline=None)
@given(BOXES, TEXTS, st.integers(1, 120), st.integers(1, 120))
def test_no_box_and_no_text_is_too_strange(boxes, text, width, height):
    drawn = draw_boxes(grey(width, height), boxes, [text] * len(boxes), [BLUE] * len(boxes))
    assert drawn.shape == (height, width, 3)


@settings(deadline=None)
@given(TEXTS, st.integers(0, 130), st.integers(0, 130), st.integers(5, 90))
def test_pillow_cuts_off_what_does_not_fit(text, x, y, size):
    printable = ''.join(filter(str.isprintable, text))
    whole, cut = grey(8000, 300), grey(120, 120)
    PillowFont().write(whole, printable, (x, y), size, 0)
    PillowFont().write(cut, printable, (x, y), size, 0)
    assert np.array_equal(cut, whole[:120, :120])


@pytest.mark.skipif(FONT.__class__ is PillowFont, reason='OpenCV 5 has the characters')
def test_chinese_characters_differ():
    ni, hao = (draw_boxes(grey(80, 60), [[5, 30, 60, 50]], [t], [BLUE]) for t in '你好')
    assert (ni != hao).any()


@pytest.fixture
def visualizer():
    cfg = Config.fromfile(ROOT / 'configs/ssd300_voc.py').visualizer
    visualizer = VISUALIZERS.build(dict(cfg, name='drawn', vis_backends=[]))
    visualizer.dataset_meta = dict(classes=CLASSES, palette=[(1, 2, 3)] * 3)
    return visualizer


def test_the_visualizer_of_the_configs_draws_ours_with_ground_truth_beside(tmp_path, visualizer):
    detected = found((20, 40, 60, 80, 0.9, 1), (5, 5, 9, 9, 0.2, 0))
    truth = InstanceData(bboxes=torch.tensor([[30.0, 40, 70, 80]]), labels=torch.tensor([0]))
    sample = DetDataSample(gt_instances=truth, pred_instances=detected.to_tensor())
    plain = grey(100, 90)
    visualizer.add_datasample('x', plain, sample, out_file=str(tmp_path / 'x.png'))
    left, right = np.split(cv2.imread(str(tmp_path / 'x.png')), 2, axis=1)
    assert np.array_equal(left, draw_boxes(plain, truth.bboxes, ['cat'], [BLUE]))
    assert np.array_equal(right, draw(plain, detected[:1], CLASSES))


def test_the_visualizer_takes_images_without_annotations_and_boxes_of_mmdetection(visualizer):
    plain, box = grey(100, 90), torch.tensor([[30.0, 40, 70, 80]])
    visualizer.add_datasample(
        'x', plain, DetDataSample(gt_instances=InstanceData()), draw_pred=False
    )
    assert np.array_equal(visualizer.get_image(), plain)
    truth = InstanceData(bboxes=HorizontalBoxes(box), labels=torch.tensor([2]))
    visualizer.dataset_meta = {}
    visualizer.add_datasample('x', plain, DetDataSample(gt_instances=truth), draw_pred=False)
    expected = draw_boxes(plain, box, ['class 2'], [GREEN])[..., ::-1]  # RGB
    assert np.array_equal(visualizer.get_image(), expected)
