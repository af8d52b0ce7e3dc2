"""tools/test.py with an exported file: detections and metrics are those of its checkpoint."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from mmengine.fileio import load

from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import SSDPluginWarning
from ssd_plugin.export.graph import BoxesAndScores
from tests.support.config_rows import metrics_in
from tests.support.exported import export, lively_detector, read_config

SIZE = (160, 160)


@pytest.fixture(scope='module')
def detector():
    """The one whose weights are ``weights.pth``."""
    return lively_detector(read_config('demo_shapes', **{'test_cfg.max_per_img': 20}), SIZE)


@pytest.fixture(scope='module')
def exported(detector, tmp_path_factory):
    """Its file."""
    path = tmp_path_factory.mktemp('exported') / 'ssd.onnx'
    return export(detector, SIZE, path, classes=CLASSES)


@pytest.fixture
def tested(run, tmp_path):
    """Runs the command; answers boxes, scores and labels by image, and the metrics."""

    def call(name, file, *options, config='demo.py'):
        out, work_dir = tmp_path / f'{name}.pkl', tmp_path / name
        run('test', config, file, '--out', out, '--work-dir', work_dir, *options)
        found = [image['pred_instances'] for image in load(out)]
        return [[one[key].numpy() for key in ('bboxes', 'scores', 'labels')] for one in found], (
            metrics_in(work_dir)
        )

    return call


def test_a_config_with_a_moving_average_tests_the_file(exported, tested, tmp_path):
    config = tmp_path / 'average.py'
    base = f'_base_ = [{str(Path("demo.py").resolve())!r}]\n'
    config.write_text(base + "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook')]\n")
    assert_same(tested('average', exported, config=config), tested('plain', exported))


def test_options_that_a_file_with_nms_does_not_follow_are_told(exported, run, tmp_path):
    options = '--work-dir', tmp_path, '--cfg-options', 'model.test_cfg.score_thr=0.9'
    with pytest.warns(
        SSDPluginWarning, match="inside, with score_thr=0.01: the config's model.test_cfg has"
    ):
        run('test', 'demo.py', exported, *options)


def assert_same(found, expected):
    (images, metrics), (expected_images, expected_metrics) = found, expected
    for one, other in zip(images, expected_images, strict=True):
        for values, theirs, tolerance in zip(one, other, (1e-2, 1e-4, 0), strict=True):
            np.testing.assert_allclose(values, theirs, rtol=0, atol=tolerance)
    for name, value in expected_metrics.items():
        if 'time' not in name:
            assert metrics[name] == pytest.approx(value, abs=1e-3)


def test_with_and_without_nms_and_on_a_folder_it_is_as_good_as_the_checkpoint(
    detector, exported, tested, tmp_path
):
    expected = tested('weights', 'weights.pth')
    assert sum(len(scores) for _, scores, _ in expected[0]) == 4 * 20
    assert_same(tested('nms', exported), expected)
    raw = export(detector, SIZE, tmp_path / 'raw.onnx', graph=BoxesAndScores, classes=CLASSES)
    assert_same(tested('raw', raw), expected)
    folder = '--data-root', 'data/shapes'
    assert_same(tested('folder', exported, *folder), tested('theirs', 'weights.pth', *folder))


def test_a_file_that_other_tools_have_written_into_is_taken(exported, tested, tmp_path):
    model = onnx.load(exported)
    for key in ('onnx.infer', 'onnx.quant.pre_process'):  # as ONNX Runtime's quantisation does
        model.metadata_props.add(key=key, value='onnxruntime.quant')
    onnx.save(model, tmp_path / 'other.onnx')
    assert_same(tested('written', tmp_path / 'other.onnx'), tested('own', exported))


def test_labels_count_the_classes_of_the_data_whatever_order_the_file_has_them_in(
    detector, exported, tested, tmp_path
):
    names = CLASSES[2:] + CLASSES[:2]
    other = export(detector, SIZE, tmp_path / 'other.onnx', classes=names)
    (expected, _), (found, _) = tested('own', exported), tested('other', other)
    for (*_, labels), (*_, theirs) in zip(found, expected, strict=True):
        assert [CLASSES[label] for label in labels] == [names[label] for label in theirs]


def test_a_file_that_is_not_the_config_s_is_one_line(detector, exported, run, tmp_path):
    strangers = export(detector, SIZE, tmp_path / 'cats.onnx', classes=['cat', *CLASSES[1:]])
    text, foreign = tmp_path / 'text.onnx', tmp_path / 'foreign.onnx'
    text.write_text('no graph')
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, foreign)
    for line, said in (
        ([tmp_path / 'none.onnx'], 'no checkpoint file'),
        ([text], 'text.onnx is no ONNX file'),
        ([foreign], 'foreign.onnx was not written by tools/export_onnx.py'),
        ([strangers], 'cats.onnx has the classes cat, square'),
        ([strangers, '--data-root', 'data/shapes', '--classes', 'circle'], 'cats.onnx cat, square'),
        ([exported, '--size', '192'], 'takes images of 160 x 160 .*, and the config.* 192 x 192'),
        ([exported, '--amp'], '--amp: .*ssd.onnx computes in the precision'),
    ):  # fmt: skip
        with pytest.raises(SystemExit, match=said) as caught:
            run('test', 'demo.py', *line, '--work-dir', tmp_path / 'work')
        assert '\n' not in caught.value.code
