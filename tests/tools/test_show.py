"""The commands that draw, on a few drawn shapes and an untrained detector."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.visualization.test_curves import train, val, write_log

ROOT = Path(__file__).resolve().parents[2]

import show  # noqa: E402

DEMO_CONFIG = ROOT / 'configs' / 'demo_shapes.py'
CONFIG = 'demo.py'
QUICK = """
model = dict(test_cfg=dict(max_per_img=20))
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader)
val_dataloader = dict(**loader)
test_dataloader = val_dataloader
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A directory with six images to train on, four to test on, a config and a checkpoint."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    folder = tmp_path_factory.mktemp('show')
    write_voc_shapes(folder / 'data/shapes', num_train=6, num_test=4)
    (folder / CONFIG).write_text(f'_base_ = [{str(DEMO_CONFIG)!r}]\n{QUICK}')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / CONFIG).model)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'weights.pth')
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs a command in that directory; answers what it prints."""
    monkeypatch.chdir(folder)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['show.py', *map(str, args)])
        show.main()
        return capsys.readouterr().out

    return call


def read(path, shape):
    """A PNG of a stated (h, w), with something on it."""
    image = cv2.imread(str(path))
    assert image.shape == (*shape, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 30
    return image


def test_priors(run):
    output = run('priors', CONFIG)
    assert output.splitlines()[-1] == 'work_dirs/demo/show/priors.png'
    first = read('work_dirs/demo/show/priors.png', (1126, 858))
    cv2.imwrite('white.png', np.full((20, 30, 3), 255, np.uint8))
    run('priors', CONFIG, '--image', 'white.png', '--out-dir', 'white')
    other = read('white/priors.png', (1126, 858))
    assert (other == 255).mean() > (first == 255).mean() + 0.2  # drawn on the other image


def test_matches(run):
    output = run('matches', CONFIG, '--out-dir', 'out')
    objects, matched = map(int, re.search(r'(\d) objects, (\d+) of 2136 priors', output).groups())
    assert 1 <= objects <= 6 and matched >= objects
    assert 'hard negatives' not in output
    output = run('matches', CONFIG, '--checkpoint', 'weights.pth', '--out-dir', 'out')
    assert f'{matched} of 2136 priors matched to them, {3 * matched} hard negatives' in output
    assert Path('out/matches.png').stat().st_size > 50_000


def test_a_training_sample_by_its_index(run):
    counts = [run('matches', CONFIG, '--index', index, '--out-dir', 'out')[:1] for index in (0, 5)]
    boxes = [
        Path(f'data/shapes/Annotations/00000{n}.xml').read_text().count('<bndbox>') for n in (1, 6)
    ]
    assert counts == [str(number) for number in boxes]


def test_augment(run):
    run('augment', CONFIG, '--num', 2, '--draws', 3, '--out-dir', 'out')
    first = read('out/augment.png', (720, 1144))
    run('augment', CONFIG, '--num', 2, '--draws', 3, '--out-dir', 'out')
    assert np.array_equal(first, cv2.imread('out/augment.png'))  # the same seed, the same image
    run('augment', CONFIG, '--num', 2, '--draws', 3, '--seed', 1, '--out-dir', 'out')
    assert not np.array_equal(first, cv2.imread('out/augment.png'))


def test_curves(run, folder):
    for name, scale in (('one', 1), ('two', 2)):
        entries = [train(step, scale / step) for step in (10, 20)] + [val(1, 0.3 * scale)]
        write_log(folder / name, '1', entries)
    output = run('curves', 'one', 'two')
    assert output == 'one/show/curves.png\n'
    read('one/show/curves.png', (1045, 1210))


def test_errors(run):
    output = run('errors', CONFIG, 'weights.pth', '--score-thr', 0.2, '--out-dir', 'out')
    wanted = [
        xml.count('<difficult>0')
        for xml in (Path(f'data/shapes/Annotations/{n:06d}.xml').read_text() for n in range(7, 11))
    ]
    (row,) = (line.split() for line in output.splitlines() if line.split()[:1] == ['all'])
    assert int(row[1]) == sum(wanted)
    assert output.splitlines()[-2:] == ['out/error_counts.png', 'out/errors.png']
    read('out/error_counts.png', (429, 1320))
    assert abs(cv2.imread('out/errors.png').shape[1] - 1518) <= 1  # Matplotlib 3.10 has one less


def test_no_errors_no_sheet(run, monkeypatch):
    from ssd_plugin.visualization import detections

    def perfect(cfg, checkpoint, loader, device):
        for i in range(len(loader.dataset)):
            info = loader.dataset.get_data_info(i)
            boxes = np.array([instance['bbox'] for instance in info['instances']], np.float32)
            labels = np.array([instance['bbox_label'] for instance in info['instances']])
            ignored = np.zeros(len(labels), bool)
            scores = np.full(len(labels), 0.9)
            yield detections.Result(info['img_path'], boxes, labels, ignored, boxes, labels, scores)

    monkeypatch.setattr(detections, 'detect_all', perfect)
    output = run('errors', CONFIG, 'weights.pth', '--out-dir', 'perfect')
    assert 'no errors' in output
    assert sorted(path.name for path in Path('perfect').iterdir()) == ['error_counts.png']
    output = run('pr', CONFIG, 'weights.pth', '--out-dir', 'perfect')
    assert output.count('AP 1.000') == len(re.findall(r'objects\n', output)) + 1


def test_precision_and_recall_are_those_of_the_evaluation(run, folder):
    output = run('pr', CONFIG, 'weights.pth', '--split', 'test', '--out-dir', 'out')
    assert cv2.imread('out/pr.png').shape[1] == 891
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir, cfg.load_from = str(folder / 'test'), str(folder / 'weights.pth')
    evaluated = Runner.from_cfg(cfg).test()['pascal_voc/mAP']
    shown = float(re.search(r'mean +AP (\d\.\d+)', output).group(1))
    assert shown == pytest.approx(evaluated, abs=6e-4)


@pytest.mark.parametrize(
    'args, said',
    [
        (['priors', 'nothing.py'], 'no config file nothing.py'),
        (['priors', CONFIG, '--image', CONFIG], f'{CONFIG} is no image'),
        (['matches', CONFIG, '--index', 6], '--index goes from 0 to 5'),
        (['matches', CONFIG, '--checkpoint', 'none.pth'], 'no checkpoint file none.pth'),
        (['errors', CONFIG, 'none.pth'], 'no checkpoint file none.pth'),
        (['augment', CONFIG, '--cfg-options', 'train_dataloader.dataset.data_root=x/'], 'x/'),
        (['curves', 'data'], 'no training has been logged in data'),
    ],
)
def test_a_users_mistake_is_one_line(args, said, run):
    with pytest.raises(SystemExit) as caught:
        run(*args)
    assert said in caught.value.code and '\n' not in caught.value.code


def test_numbers_are_checked(run, capsys):
    with pytest.raises(SystemExit):
        run('augment', CONFIG, '--num', 0)
    assert "'0' is not a whole number from 1" in capsys.readouterr().err


def test_importing_the_plugin_imports_none_of_it():
    for path in (ROOT / 'ssd_plugin').glob('*.py'):
        text = path.read_text()
        assert not re.search(r'(from|import) [.\w]*(matplotlib|\.show|\.fit)\b', text), path
