"""What training and testing print: few lines, each of use, and the rest in the log file."""

import json
import re
import shlex

import pytest

from tests.support.commands import ROOT, run, run_warm
from tests.support.logs import logged_losses
from tests.support.tiny_training import BY_ITERATION, PLAIN, write_training

TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'

EPOCHS = (
    PLAIN
    + """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=9)
default_hooks['checkpoint'] = dict(type='CheckpointHook', interval=9, save_best='auto')
log_processor = dict(window_size=1)
visualizer['vis_backends'] = [dict(type='LocalVisBackend')]
val_evaluator = test_evaluator = dict(type='VOCDetMetric', iou_thrs=[0.1])
custom_imports['imports'].append('noisy')
"""
)
NOISY = """
import warnings
from mmengine.logging import print_log
from pycocotools.coco import COCO

warnings.warn('pkg_resources is deprecated', FutureWarning)
print_log('a note of a library', logger='current', level=30)
print_log('a note without a logger')
COCO().createIndex()
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config of a small detector, with six images and a module that makes noise."""
    folder = tmp_path_factory.mktemp('my console')
    write_training(folder, EPOCHS, num_train=6)
    (folder / 'noisy.py').write_text(NOISY)
    return folder


@pytest.fixture(scope='module')
def trained(folder):
    """The lines that a training prints, in a process that imports everything itself."""
    return run(TRAIN, 'tiny.py', cwd=folder, path=[folder]).splitlines()


def test_training_prints_a_line_for_each_tenth_and_what_to_type_next(trained):
    log, life, *progress, checkpoints, test, detect, export = trained
    assert re.fullmatch(r'Log: work_dirs/tiny/\w+/\w+\.log', log)
    assert re.match(r'epoch  1/30, iteration 1/3   loss \d+\.\d{3}, cls \S+, bbox .* left$', life)
    assert [line.split()[1] for line in progress] == [f'{i}/30' for i in range(3, 31, 3)]
    assert checkpoints.startswith('Checkpoints: work_dirs/tiny/best_')
    assert [line.split()[1].rpartition('/')[2] for line in (test, detect, export)] == [
        'test.py', 'detect.py', 'export_onnx.py',
    ]  # fmt: skip


def test_an_evaluation_completes_the_line_of_its_epoch(trained):
    evaluated = [line.split()[1] for line in trained if re.search(r'   mAP [01]\.\d{3}$', line)]
    assert evaluated == ['9/30', '18/30', '27/30', '30/30']


def test_losses_of_a_line_are_their_means_since_the_line_before(trained, folder):
    losses = logged_losses(folder / 'work_dirs' / 'tiny')
    told = {int(found[1]): float(found[2]) for line in trained
            if (found := re.match(r'epoch +(\d+)/30   loss (\S+),', line))}  # fmt: skip
    for epoch, first in ((3, 2), (6, 10), (30, 82)):  # a line was printed after iteration 1
        since = [losses[i] for i in range(first, 3 * epoch + 1)]
        assert told[epoch] == pytest.approx(sum(since) / len(since), abs=1e-3)


def test_what_libraries_tell_is_in_the_log_alone(trained, folder):
    (log,) = folder.glob('work_dirs/tiny/*/*.log')
    text = log.read_text()
    for told in ('pkg_resources is deprecated', 'System environment', 'Epoch(train)'):
        assert told in text
    for noise in ('deprecated', 'library', 'a note', 'index created', 'environment', 'mmengine'):
        assert not any(noise in line for line in trained), noise


def test_the_commands_that_are_printed_run(trained, folder):
    test, detect, export = (shlex.split(line)[1:] for line in trained[-3:])
    quiet = ['--cfg-options', 'custom_imports.imports=[ssd_plugin,tests.support.tiny_training]']
    said = run_warm(*test, *quiet, cwd=folder).splitlines()
    (metrics,) = folder.glob('work_dirs/tiny/*/2*.json')
    metrics = json.loads(metrics.read_text())
    by_class = {
        name.rpartition('/')[2]: f'{value:.3f}' for name, value in metrics.items() if '/AP/' in name
    }
    assert by_class and dict(line.split() for line in said[: len(by_class)]) == by_class
    assert said[len(by_class)].startswith(f'mAP {metrics["pascal_voc/mAP"]:.3f}, AP10 ')
    assert len(said) == len(by_class) + 2, said
    run_warm(*detect, *quiet, cwd=folder)
    run_warm(*export, *quiet, cwd=folder)
    assert (folder / 'work_dirs/tiny/detector.onnx').is_file()
    assert (folder / 'work_dirs/tiny/out/detections.json').is_file()


def test_verbose_brings_mmengines_console_back(folder):
    options = ['--verbose', '--work-dir', 'verbose', '--cfg-options', 'train_cfg.max_epochs=1']
    said = run(TRAIN, 'tiny.py', *options, cwd=folder, path=[folder])
    for told in ('System environment', 'Epoch(train)', 'FutureWarning: pkg_resources is', 'a note'):
        assert told in said
    assert 'Log: ' not in said


def test_a_training_by_iterations_says_where_it_is(tmp_path):
    config = write_training(tmp_path, BY_ITERATION)
    lines = run_warm(TRAIN, config, cwd=tmp_path).splitlines()
    places = [line.split()[1] for line in lines if line.startswith('iteration')]
    assert [int(place.split('/')[0]) for place in places] == [1, 2, 4, 6, 8, 10, 12, 14, 15]


LINKED = """
import ssd_plugin
from mmengine.logging import MMLogger
from ssd_plugin.engine.console import quieten
quieten()
for file in (ssd_plugin.__file__, 'mmdet.py'):
    exec(compile('MMLogger.get_current_instance().warning(file)', file, 'exec'))
"""


def test_a_warning_shows_where_the_package_is_found_through_a_link(tmp_path):
    (tmp_path / 'ssd_plugin').symlink_to(ROOT / 'ssd_plugin')
    said = run('-c', LINKED, cwd=tmp_path, path=[tmp_path])
    assert said.splitlines()[-1] == f'{tmp_path}/ssd_plugin/__init__.py'
    assert 'mmdet.py' not in said


LIBRARY = """
import logging
import ssd_plugin
from ssd_plugin.engine.console import quieten
quieten()
logging.getLogger('timm.models').warning('Unexpected keys')
logging.getLogger('timm.models').error('no such model')
"""


def test_of_a_librarys_own_loggers_only_errors_show(tmp_path):
    said = run('-c', LIBRARY, cwd=tmp_path)
    assert 'no such model' in said
    assert 'Unexpected keys' not in said
