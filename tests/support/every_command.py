"""What each command of tools/ has to do with any config: the table that tests run.

A command that takes a config is a row of ``COMMANDS``, or of ``NOT_HERE`` with the reason.
"""

import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from tests.support.config_rows import Row, metrics_in
from tests.support.helpers import iou
from tests.support.logs import logged_losses
from tests.support.weights import load


def detect(row: Row) -> None:
    """``detect.py`` on an image, a folder and a video."""
    out = row.detect(row.weights)
    found = detections_in(out)
    assert list(found) == ['image.jpg', 'images/other.png', 'clip.mp4']
    for path, (width, height, detections) in found.items():
        assert detections
        source, drawn = (first_image(folder / path) for folder in (row.folder, out / 'vis'))
        assert source.shape == drawn.shape == (height, width, 3)
        assert (source != drawn).any()
        assert {name for name, *_ in detections} <= set(row.classes)
        boxes = np.array([box for _, box, _ in detections])
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        if row.clips:
            assert boxes.min() >= 0 and (boxes[:, 2:] <= (width + 0.01, height + 0.01)).all()


def detect_onnx(row: Row) -> None:
    """``detect.py`` with the file of ``export_onnx.py`` finds what it does with the weights."""
    expected, found = (detections_in(row.detect(path)) for path in (row.weights, row.exported))
    assert found.keys() == expected.keys()
    for path, (*size, detections) in expected.items():
        assert found[path][:2] == tuple(size)
        assert_same(found[path][2], detections)


def det_inferencer(row: Row) -> None:
    """MMDetection's ``DetInferencer`` finds what ``detect.py`` does."""
    expected = [found for found in row.found_by_program if found[2] >= row.threshold]
    assert len(row.found_by_program) > len(expected) == 15
    assert_same(detections_in(row.detect(row.weights))['image.jpg'][2], expected)


def export_onnx(row: Row) -> None:
    """``export_onnx.py`` writes a file, and so has found the same detections with it."""
    assert row.exported.stat().st_size > 1_000_000


def train(row: Row) -> None:
    """Two iterations of ``train.py`` change the weights, with finite losses."""
    losses = logged_losses(row.trained)
    assert list(losses) == [1, 2] and all(0 < loss < math.inf for loss in losses.values())
    before, after = load(row.weights)['state_dict'], load(row.checkpoint)['state_dict']
    assert before.keys() == after.keys()
    assert all(value.isfinite().all() for value in after.values())
    for part in ('bbox_head', 'backbone'):
        names = [name for name in before if name.startswith(part)]
        assert not all(torch.equal(before[name], after[name]) for name in names)


def test(row: Row) -> None:
    """``test.py`` evaluates what training has written."""
    work_dir = row.folder / 'tested'
    row.run('test', row.config, row.checkpoint, '--work-dir', work_dir, *row.in_this_process)
    evaluated = row.cfg.test_evaluator.type
    metric = 'coco/bbox_mAP' if evaluated == 'CocoMetric' else 'pascal_voc/mAP'
    value = metrics_in(work_dir)[metric]
    assert 0 <= value <= 1


def get_flops(row: Row) -> None:
    """``get_flops.py`` counts the parameters of the detector."""
    (line,) = row.run('get_flops', row.config, '--markdown').splitlines()
    _, size, priors, parameters, macs = line.strip('| ').split(' | ')
    assert parameters == f'{row.num_parameters / 1e6:.2f} M'
    assert int(priors) == row.num_priors and float(macs.removesuffix(' G')) > 0
    assert [*map(int, size.split(' x '))] == list(row.size)


def fit_priors(row: Row) -> None:
    """``fit_priors.py`` says sizes for each level, and writes a config with them, or keeps ours."""
    out = row.folder / 'priors.py'
    said = row.run('fit_priors', row.config, '--out', out)
    assert is_drawn(out.with_suffix('.png'))
    given = row.cfg.model.bbox_head.anchor_generator
    levels = len(given.strides)
    assert len(re.findall(r'^│? *\d+ ', said, re.MULTILINE)) >= levels
    if 'Nothing better was found' not in said:
        fitted = Config.fromfile(out).model.bbox_head.anchor_generator
        assert len(fitted.min_sizes) == levels and fitted.strides == given.strides


def show(row: Row, command: str, *args: object, figures: list[str] = ()) -> None:
    out = row.folder / 'show'
    row.run('show', command, *args, '--out-dir', out)
    assert all(is_drawn(out / f'{figure}.png') for figure in figures or [command])


def show_priors(row: Row) -> None:
    """The priors, on an image of the training set."""
    show(row, 'priors', row.config)


def show_matches(row: Row) -> None:
    """The matched priors and the hard negatives of a training sample."""
    show(row, 'matches', row.config, '--checkpoint', row.weights)


def show_augment(row: Row) -> None:
    """Training images as they are and augmented."""
    show(row, 'augment', row.config, '--num', 1, '--draws', 1)


def show_curves(row: Row) -> None:
    """The losses of a training."""
    show(row, 'curves', row.trained)


def show_errors(row: Row) -> None:
    """The worst images, and errors by kind and class."""
    options = ('--score-thr', row.threshold, *row.in_this_process)
    show(row, 'errors', row.config, row.weights, *options, figures=['errors', 'error_counts'])


def show_pr(row: Row) -> None:
    """Precision over recall of each class."""
    show(row, 'pr', row.config, row.weights, *row.in_this_process)


COMMANDS = dict(
    detect=detect,
    export_onnx=export_onnx,
    fit_priors=fit_priors,
    get_flops=get_flops,
    test=test,
    train=train,
)
SHOWS = dict(
    priors=show_priors,
    matches=show_matches,
    augment=show_augment,
    curves=show_curves,
    errors=show_errors,
    pr=show_pr,
)
PROGRAMS = dict(detect_onnx=detect_onnx, det_inferencer=det_inferencer)
# What commands say to a head that is not ours, in one line: its steps are not the same.
OTHER_HEADS = dict(
    export_onnx='no SSDMultiBoxHead in model.bbox_head, but RetinaHead',
    detect_onnx='no SSDMultiBoxHead in model.bbox_head, but RetinaHead',
    fit_priors='its priors are those of AnchorGenerator: only SSDPriorGenerator can be fitted',
)
CELLS = COMMANDS | PROGRAMS | {f'show_{name}': function for name, function in SHOWS.items()}
NOT_HERE = dict(
    export_tflite='its converter has an environment of its own: test_litert.py is over all configs',
    benchmark='it measures models of its own; detecting, it runs what detect.py does',
    convert_checkpoint='it takes checkpoints of other projects, and no config',
    demo_report='it is about the demo alone',
    prepare_data='it fetches data, and takes no config',
    state_digest='it takes a checkpoint, and no config',
)


def run_cell(name: str, row: Row) -> None:
    """Run a command with a config; it does what it should, or refuses in one line."""
    head = row.cfg.model.bbox_head.type
    if name in OTHER_HEADS and not head.endswith('SSDMultiBoxHead'):
        with pytest.raises(SystemExit, match=OTHER_HEADS[name]) as caught:
            CELLS[name](row)
        assert '\n' not in caught.value.code
    else:
        CELLS[name](row)


def detections_in(folder: Path) -> dict[str, tuple[int, int, list]]:
    """Width, height and detections (class, box xyxy, score) of each image by its path."""
    images = json.loads((folder / 'images.json').read_text())
    names = {category['id']: category['name'] for category in images['categories']}
    found = {i['id']: (i['width'], i['height'], []) for i in images['images']}
    for entry in json.loads((folder / 'detections.json').read_text()):
        x, y, width, height = entry['bbox']
        name, box = names[entry['category_id']], (x, y, x + width, y + height)
        found[entry['image_id']][2].append((name, box, entry['score']))
    return {image['file_name']: found[image['id']] for image in images['images']}


def assert_same(found: list, expected: list) -> None:
    """The same detections but for rounding, by which one of a pair may be suppressed."""
    assert abs(len(found) - len(expected)) <= 0.05 * len(expected)
    alike = 0
    for name, box, score in expected:
        alike += any(
            name == other_name and abs(score - other_score) < 1e-3 and iou(box, other_box) > 0.99
            for other_name, other_box, other_score in found
        )
    assert alike >= 0.95 * len(expected) > 0


def first_image(path: Path) -> np.ndarray:
    """The image in a file, or the one frame of a video."""
    if path.suffix != '.mp4':
        return cv2.imread(str(path))
    video = cv2.VideoCapture(str(path))
    (read, image), (more, _) = video.read(), video.read()
    assert read and not more
    return image


def is_drawn(path: Path) -> bool:
    """Whether there is an image with something on it."""
    image = cv2.imread(str(path))
    return min(image.shape[:2]) > 100 and image.std() > 10
