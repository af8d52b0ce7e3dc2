"""tools/fit_priors.py, on made-up sets of boxes."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.config import Config

from ssd_plugin.datasets.shapes import CLASSES
from tests.support.commands import ROOT
from tests.support.data_folders import write_boxes

DEMO_CONFIG = ROOT / 'configs/demo_shapes.py'


def thin_images(number=40, seed=0):
    """Images of the demo's input size with four boxes each, seven times as long as wide."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(number):
        objects = []
        for _ in range(4):
            sides = (np.array([84, 12]) * rng.uniform(0.85, 1.15))[:: rng.choice([1, -1])]
            low = rng.uniform(0, 160 - sides)
            objects.append((CLASSES[rng.integers(2)], [*low, *(low + sides)], False))
        images.append(((160, 160), objects))
    images[0][1].append(('star', (50, 50, 50, 90), False))  # without area
    return images


@pytest.fixture
def fit(run, tmp_path, monkeypatch):
    """Runs the command in a directory with a config that trains on thin boxes."""
    monkeypatch.chdir(tmp_path)
    write_boxes('thin', thin_images())
    data = "train_dataloader = dict(dataset=dict(data_root='thin/'))"
    Path('thin.py').write_text(f'_base_ = [{str(DEMO_CONFIG)!r}]\n{data}\n')
    return partial(run, 'fit_priors')


def before_and_after(output, row='all'):
    """The share at IoU 0.5 in the table, in percent."""
    (line,) = (line for line in output.splitlines() if line.split()[:1] == [row])
    before, arrow, after = line.split()[2:5]
    assert arrow == '→'
    return float(before), float(after)


def read_generator(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    return cfg, TASK_UTILS.build(cfg.model.bbox_head.anchor_generator)


def test_long_thin_objects(fit):
    output = fit('thin.py')
    assert '160 objects in 40 images; left out: 1 without area' in output
    assert 'work_dirs/thin/fitted_priors.py' in output
    assert before_and_after(output)[0] < 10
    assert all(before_and_after(output, row)[1] > 80 for row in ('all', 'circle', 'square'))

    cfg, fitted = read_generator('work_dirs/thin/fitted_priors.py')
    _, given = read_generator(DEMO_CONFIG)
    assert cfg.train_dataloader.dataset.data_root == 'thin/'  # inherits from the config
    assert (fitted.num_base_priors, fitted.strides) == (given.num_base_priors, given.strides)
    image = cv2.imread('work_dirs/thin/fitted_priors.png')
    assert image.shape == (759, 1276, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_the_written_config_has_nothing_left_to_gain(fit):
    first = fit('thin.py', '--out', 'new/fitted.py')
    again = fit('new/fitted.py', '--out', 'again.py')
    if 'Nothing better' in again:
        assert not Path('again.py').exists()
    else:
        assert before_and_after(again)[0] == before_and_after(first)[1]
        assert before_and_after(again)[1] - before_and_after(again)[0] < 5
    assert Path('again.png').is_file()


def test_a_config_with_a_training_keeps_its_work_directory(fit):
    Path('thin.py').write_text(Path('thin.py').read_text() + "work_dir = 'trained'\n")
    fit('thin.py')
    cfg, _ = read_generator('trained/fitted_priors.py')
    assert cfg.work_dir == 'trained/fitted_priors'


def test_it_says_so_when_nothing_better_is_found(fit):
    """Boxes that are priors themselves."""
    _, generator = read_generator(DEMO_CONFIG)
    sizes = [(20, 20), (10, 10), (5, 5), (3, 3)]
    priors = torch.cat(generator.grid_priors(sizes, device='cpu')).numpy()
    inside = priors[((priors >= 0) & (priors <= 160)).all(1)][::25]
    write_boxes('fitting', [((160, 160), [('circle', box.round(), False) for box in inside])])
    options = ('--cfg-options', 'train_dataloader.dataset.data_root=fitting/')
    output = fit('thin.py', *options, '--out', 'none.py')
    assert 'Nothing better was found' in output and '→' not in output
    assert not Path('none.py').exists() and Path('none.png').is_file()


def test_the_same_seed_writes_the_same_config(fit):
    for name in ('one.py', 'other.py'):
        fit('thin.py', '--seed', 5, '--max-images', 10, '--out', name)
    assert Path('one.py').read_text() == Path('other.py').read_text().replace('other', 'one')
