"""SSDAugment does what the augmentation of SSD does, step by step, and loses no box."""

import random
from functools import partial
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import worker_init_fn
from torch.utils.data import DataLoader

from ssd_plugin.datasets.transforms.crop_windows import draw_window
from ssd_plugin.datasets.transforms.ssd_augment import INTERPOLATIONS, Plan, SSDAugment, clean
from ssd_plugin.models.boxes import valid_gt_mask
from tests.support import staged_augment as staged
from tests.support.helpers import iou
from tests.support.photographs import drawn_image

BOXES = [(30, 40, 110, 220), (200, 60, 390, 300), (20, 250, 60, 280), (330, 10, 380, 60)]
NO_DISTORTION = (0, 1, 1, 0)


def results_of(image, boxes=BOXES, **changes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return dict(
        img=image, img_path='a.jpg', img_shape=image.shape[:2], ori_shape=image.shape[:2],
        gt_bboxes=HorizontalBoxes(boxes), gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
    ) | changes  # fmt: skip


def whole(image, **changes):
    """A plan that only resizes."""
    height, width = image.shape[:2]
    size = (width, height)
    plan = Plan(NO_DISTORTION, size, (0, 0), (0, 0, width, height), cv2.INTER_LINEAR, False)
    return plan._replace(**changes)


# ------------------------------------------------------------------------------------ the output


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_output_is_that_of_the_staged_augmentation(interpolation):
    size = (300, 200)
    augment = SSDAugment(size)
    generator = np.random.default_rng(interpolation)
    differences = []
    boxes = clean(np.array(BOXES), 400, 320)
    for i in range(25):
        image = drawn_image(320, 400, seed=i)
        plan = augment.draw(generator, (320, 400), boxes)._replace(interpolation=interpolation)
        output = staged.augmented_image(image, plan, size)
        differences.append(np.abs(augment.apply_to_image(image, plan) - output))
        assert differences[-1].mean() < 1.5, plan
        got, kept = augment.apply_to_bboxes(boxes, plan)
        expected = staged.moved_boxes(BOXES, plan, size)
        assert kept.nonzero()[0].tolist() == list(expected)
        np.testing.assert_allclose(got, np.reshape(list(expected.values()), (-1, 4)), atol=1e-9)
    # Over all: in grey levels, of 255.
    assert np.mean(differences) < 0.6
    assert np.percentile(differences, 99) < 4


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_edges_in_the_image_overshoot_no_further_than_0_and_255(interpolation):
    rows, columns, _ = np.indices((60, 80, 3)) // 10
    image = np.where((rows + columns) % 2, np.uint8(255), np.uint8(0))  # a chessboard
    plan = whole(image, interpolation=interpolation)
    for size in ((200, 130), (50, 40)):
        got = SSDAugment(size).apply_to_image(image, plan)
        assert np.abs(got - staged.augmented_image(image, plan, size)).max() < 3


def test_grey_levels_end_at_0_and_255_after_each_distortion():
    image = drawn_image(60, 80) // 2 * 2 + np.uint8(1)
    image[:20], image[40:] = image[:20] // 4, 255 - image[40:] // 4  # dark and bright
    factors = (0.5, 1, 1.5)
    for distortion in product((-32, 0, 32), factors, factors, (-18, 0, 18)):
        got = SSDAugment((80, 60)).apply_to_image(image, whole(image, distortion=distortion))
        difference = np.abs(got - staged.distorted(image, *distortion))
        assert difference.mean() < 1.5 and difference.max() < 10, distortion


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_around_the_image_is_the_mean_colour_whatever_the_distortion(interpolation):
    image = np.full((30, 50, 3), 200, np.uint8)
    plan = Plan((32, 1.5, 1.5, 18), (200, 120), (100, 30), (50, 20, 200, 120), interpolation, False)
    output = SSDAugment((300, 200)).apply_to_image(image, plan)
    inside = np.zeros((200, 300), bool)
    inside[20:80, 100:200] = True
    assert (output[inside] == 255).all()
    assert (output[~inside] == staged.MEAN).all()
    rgb = SSDAugment((300, 200), to_rgb=False).apply_to_image(image, plan)
    assert (rgb[~inside] == staged.MEAN[::-1]).all()
    beside = plan._replace(offset=(150, 90), window=(0, 0, 100, 120))
    assert (SSDAugment(20).apply_to_image(image, beside) == staged.MEAN).all()


@pytest.mark.parametrize('window', [(0, 0, 400, 320), (35, 10, 700, 500), (500, 320, 800, 640)])
def test_mirror_moves_image_and_boxes_together(window):
    image, augment, boxes = drawn_image(320, 400), SSDAugment((100, 80)), np.array(BOXES, float)
    plan = whole(image, canvas=(800, 640), offset=(100, 50), window=window)
    mirrored = plan._replace(flip=True)
    straight = augment.apply_to_image(image, plan)
    assert (augment.apply_to_image(image, mirrored) == straight[:, ::-1]).all()
    straight, kept = augment.apply_to_bboxes(boxes, plan)
    got, kept_mirrored = augment.apply_to_bboxes(boxes, mirrored)
    np.testing.assert_allclose(got, straight[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (100, 0, 100, 0))
    assert (kept == kept_mirrored).all()


# ---------------------------------------------------------------------------------- what is drawn


def test_the_same_state_draws_the_same_plan_and_the_same_output():
    image, boxes = drawn_image(320, 400), clean(np.array(BOXES), 400, 320)
    plans = [SSDAugment(300).draw(np.random.default_rng(5), (320, 400), boxes) for _ in range(2)]
    assert plans[0] == plans[1]
    outputs = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        outputs.append([SSDAugment(300)(results_of(image)) for _ in range(5)])
    for a, b, c in zip(*outputs):
        assert (a['img'] == b['img']).all() and (a['img'] != c['img']).any()
        assert (a['gt_bboxes'].tensor == b['gt_bboxes'].tensor).all()
        assert a['scale_factor'] == b['scale_factor'] != c['scale_factor']


class Plans(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return SSDAugment(20)(results_of(np.zeros((99, 99, 3), np.uint8), []))['scale_factor']


def test_workers_of_a_loader_draw_different_numbers_and_the_same_seed_the_same():
    runs = []
    for seed in (0, 0, 1):
        init = partial(worker_init_fn, num_workers=2, rank=0, seed=seed)
        batches = DataLoader(Plans(), 4, num_workers=2, worker_init_fn=init)
        runs.append(torch.stack(sum(batches, [])))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][:2], runs[0][2:])  # of the two workers


def distance(a, b):
    """Greatest distance of two samples' distribution functions (Kolmogorov and Smirnov)."""
    points = np.concatenate([a, b])
    shares = (np.searchsorted(np.sort(x), points, side='right') / len(x) for x in (a, b))
    return np.abs(np.subtract(*shares)).max()


LIMIT = 0.05  # two samples of 3000 from one distribution are further apart once in 1000 times


@pytest.mark.parametrize('boxes', [
    [(0.1, 0.2, 0.35, 0.7), (0.5, 0.3, 0.98, 0.9), (0.4, 0.05, 0.45, 0.1)],
    [(0.05, 0.1, 0.9, 0.95)],
    [(0.7, 0.7, 0.72, 0.73)],
    [],
])  # fmt: skip
def test_windows_are_distributed_as_those_of_seven_samplers_in_turn(boxes):
    rng, generator, array = random.Random(0), np.random.default_rng(0), np.reshape(boxes, (-1, 4))
    min_ious = (0.1, 0.3, 0.5, 0.7, 0.9)
    expected = np.array([staged.drawn_window(rng, boxes) for _ in range(3000)])
    drawn = np.array([draw_window(generator, array, min_ious, 0.3) for _ in range(3000)])
    assert drawn.min() > -1e-9 and drawn.max() < 1 + 1e-9  # but for rounding

    def statistics(windows):
        x1, y1, x2, y2 = windows.T
        yield ((x2 - x1) * (y2 - y1)) ** 0.5  # the scale
        yield (x2 - x1) / (y2 - y1)  # the aspect
        yield x1
        yield y2
        centres = (array[:, None, :2] + array[:, None, 2:]) / 2
        yield ((centres > windows[:, :2]) & (centres < windows[:, 2:])).all(-1).sum(0)  # kept
        best = (max((iou(w, b) for b in boxes), default=0) for w in windows.tolist())
        yield np.fromiter(best, float)

    for a, b in zip(statistics(expected), statistics(drawn)):
        assert distance(a, b) < LIMIT
    whole_canvas = [np.mean((windows == [0, 0, 1, 1]).all(1)) for windows in (expected, drawn)]
    assert whole_canvas[0] == pytest.approx(whole_canvas[1], abs=0.03)  # offers weigh the same


def test_expansion_distortions_and_the_rest_are_distributed_as_the_method_says():
    augment, generator = SSDAugment(300), np.random.default_rng(0)
    plans = [augment.draw(generator, (1000, 2000), np.zeros((0, 4))) for _ in range(6000)]
    even = np.linspace(0, 1, 3000)
    drawn = [(*p.distortion, p.canvas[0] / 2000, p.canvas[1] / 1000) for p in plans]
    limits = ((0, -32, 32), (1, 0.5, 1.5), (1, 0.5, 1.5), (0, -18, 18), (1, 1, 4), (1, 1, 4))
    for values, (neutral, low, high) in zip(np.transpose(drawn), limits, strict=True):
        drawn = values[values != neutral]
        assert len(drawn) / len(plans) == pytest.approx(0.5, abs=0.025)
        assert distance((drawn - low) / (high - low), even) < LIMIT
    for axis, side in enumerate((2000, 1000)):
        expanded = [(p.offset[axis], p.canvas[axis] - side) for p in plans if p.canvas[axis] > side]
        assert distance([offset / room for offset, room in expanded], even) < LIMIT
    assert np.mean([p.flip for p in plans]) == pytest.approx(0.5, abs=0.02)
    for interpolation in INTERPOLATIONS:
        share = np.mean([p.interpolation == interpolation for p in plans])
        assert share == pytest.approx(0.2, abs=0.02)


# ------------------------------------------------------------------------------------- the boxes


def augmented(results, times, **options):
    augment = SSDAugment(64, **options)
    np.random.seed(0)
    for _ in range(times):
        yield augment(dict(results))


def test_labels_and_flags_stay_with_their_boxes_and_none_is_doubled():
    flags = np.array([False, True, False, True])
    seen = set()
    for results in augmented(results_of(drawn_image(320, 400), gt_ignore_flags=flags), 50):
        labels = results['gt_bboxes_labels']
        assert len(labels) == len(results['gt_bboxes']) == len(set(labels.tolist()))
        assert (results['gt_ignore_flags'] == flags[labels]).all()
        assert valid_gt_mask(results['gt_bboxes'].tensor, (64, 64)).all()
        seen |= set(labels.tolist())
    assert seen == {0, 1, 2, 3}

    for results in augmented(results_of(drawn_image(320, 400)), 30, min_crop_size=1):
        assert results['gt_bboxes_labels'].tolist() == [0, 1, 2, 3], 'there is no crop'


def test_a_box_centred_on_the_border_stays_and_one_beyond_goes():
    image = drawn_image(100, 100)
    boxes = np.array([(10, 10, 30, 30), (9, 10, 29, 30), (70, 40, 90, 60), (71, 40, 91, 60)], float)
    plan = whole(image, window=(20, 0, 80, 100))
    got, kept = SSDAugment((60, 100)).apply_to_bboxes(boxes, plan)
    assert kept.tolist() == [True, False, True, False]
    assert got.tolist() == [[0, 10, 10, 30], [50, 40, 60, 60]]


FAULTY = [
    (50, 50, 50, 90), (90, 90, 60, 60), (0, 0, 0, 0), (90, 20, 60, 80), (150, 20, 180, 30),
    (-9, -9, -1, -1), (np.nan, 0, 9, 9), (0, 0, np.inf, np.inf), (-np.inf, -np.inf, 9, 9),
]  # fmt: skip


def test_faulty_boxes_stay_faulty_and_non_finite_ones_always_stay():
    image = drawn_image(100, 100)
    boxes = FAULTY + [(5, 5, 95, 95)]
    seen = set()
    for results in augmented(results_of(image, boxes), 60):
        labels, tensor = results['gt_bboxes_labels'], results['gt_bboxes'].tensor
        assert torch.equal(valid_gt_mask(tensor, (64, 64)), torch.from_numpy(labels == len(FAULTY)))
        assert {6, 7, 8} <= set(labels.tolist())
        seen |= set(labels.tolist())
    assert seen == set(range(len(boxes)))
    for results in augmented(results_of(image, boxes), 20, min_crop_size=1, ratio_range=(1, 1)):
        assert len(results['gt_bboxes']) == len(boxes)


@pytest.mark.parametrize('faulty', [True, False])
def test_no_window_is_taken_for_boxes_that_are_not_trained_on(faulty):
    image = drawn_image(100, 100)
    boxes = FAULTY if faulty else [(10, 10, 90, 90), (0, 0, 100, 100)]
    flags = np.full(len(boxes), not faulty)
    options = dict(ratio_range=(1, 1), min_ious=(0.1,) * 20)
    shares = [
        results['scale_factor'] == (0.64, 0.64)
        for results in augmented(results_of(image, boxes, gt_ignore_flags=flags), 400, **options)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)  # the whole or any


def test_boxes_need_no_box_type_and_the_output_is_laid_out_as_the_network_takes_it():
    plain = results_of(drawn_image(50, 70), gt_bboxes=np.array(BOXES, np.float32))
    del plain['gt_ignore_flags']
    pack = TRANSFORMS.build(dict(type='PackDetInputs'))
    for results in augmented(plain, 10):
        packed = pack(dict(img=results['img']))['inputs']
        assert packed.is_contiguous() and packed.data_ptr() == results['img'].ctypes.data, 'a copy'
        boxes = results['gt_bboxes']
        assert type(boxes) is np.ndarray and boxes.dtype == np.float32
        assert len(boxes) == len(results['gt_bboxes_labels'])
        assert 'gt_ignore_flags' not in results


@settings(deadline=None, max_examples=150)
@given(
    size=st.sampled_from([(1, 1), (1, 40), (40, 1), (2, 3), (10000, 3), (2, 10000), (30, 700)])
    | st.tuples(st.integers(1, 60), st.integers(1, 60)),
    scale=st.sampled_from([1, (1, 30), (30, 1), 20, (33, 47)]),
    shares=st.lists(st.tuples(*[st.floats(-0.1, 1.1)] * 4), max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_images_of_any_size(size, scale, shares, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    boxes = np.reshape(shares, (-1, 4)) * (size[::-1] * 2)
    augment = SSDAugment(scale)
    np.random.seed(seed)
    results = augment(results_of(image, boxes))
    assert (image == np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).all()
    width, height = augment.scale
    assert results['img'].shape == (height, width, 3) and results['img'].dtype == np.uint8
    assert results['img_shape'] == (height, width)
    got = results['gt_bboxes'].numpy()
    assert (got >= 0).all() and (got <= np.float32((width, height) * 2)).all()
    assert len(set(results['gt_bboxes_labels'].tolist())) == len(got) <= len(boxes)


# ---------------------------------------------------------------------------- within MMDetection


def test_it_works_from_file_to_packed_sample(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.jpg'), drawn_image(320, 400))
    augment = dict(type='SSDAugment', scale=(300, 200))
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    transforms = [*load, augment, dict(type='PackDetInputs')]
    pipeline = TRANSFORMS.build(dict(type='Compose', transforms=transforms))
    instances = [dict(bbox=list(b), bbox_label=3, ignore_flag=i % 2) for i, b in enumerate(BOXES)]
    info = dict(img_path=str(tmp_path / 'a.jpg'), img_id=7, instances=instances)
    flips = set()
    np.random.seed(0)
    for _ in range(10):
        packed = pipeline(dict(info))
        sample = packed['data_samples']
        assert packed['inputs'].shape == (3, 200, 300) and packed['inputs'].dtype == torch.uint8
        assert sample.gt_instances.bboxes.tensor.dtype == torch.float32
        assert sample.img_shape == (200, 300) and sample.img_id == 7
        assert len(sample.scale_factor) == 2
        assert sample.flip_direction == ('horizontal' if sample.flip else None)
        flips.add(sample.flip)
    assert flips == {True, False}


def test_the_defaults_are_the_recipe_and_repr_tells_it():
    assert repr(SSDAugment(300)) == (
        'SSDAugment(scale=(300, 300), mean=(123.675, 116.28, 103.53), to_rgb=True, '
        'brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5), '
        'hue_delta=18, ratio_range=(1, 4), min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), '
        'min_crop_size=0.3, flip_prob=0.5)'
    )


@pytest.mark.parametrize('name, value', [
    ('scale', 0), ('scale', (300.5, 300)), ('scale', (1, 2, 3)), ('mean', (1, 2)),
    ('mean', (0, 0, 256)), ('brightness_delta', -1), ('contrast_range', (1.5, 0.5)),
    ('contrast_range', 0.5), ('saturation_range', (-1, 1)), ('hue_delta', 181),
    ('ratio_range', (0.5, 2)), ('ratio_range', (1, float('nan'))), ('min_ious', (0.5, 0)),
    ('min_ious', (50,)), ('min_crop_size', 0), ('flip_prob', 1.1), ('flip_prob', None),
])  # fmt: skip
def test_arguments_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f'SSDAugment: {name} must be '):
        SSDAugment(**{'scale': 300, name: value})


@pytest.mark.parametrize('shape, dtype, others, named', [
    ((20, 30), np.uint8, {}, r'uint8.*a\.jpg'),
    ((20, 30, 1), np.uint8, {}, r'uint8.*a\.jpg'),
    ((20, 30, 4), np.uint8, {}, r'uint8.*a\.jpg'),
    ((20, 30, 3), np.float32, {}, r'uint8.*a\.jpg'),
    ((0, 30, 3), np.uint8, {}, r'uint8.*a\.jpg'),
    ((20, 30, 3), np.uint8, dict(gt_masks=None), 'gt_masks'),  # they would not follow the image
])  # fmt: skip
def test_what_is_no_8_bit_colour_image_with_boxes_is_named(shape, dtype, others, named):
    with pytest.raises(ValueError, match=named):
        SSDAugment(30)(results_of(np.zeros(shape, dtype), **others))
