"""The commands that draw, on a few drawn shapes and a detector with random weights."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.support.commands import ROOT, run_warm
from tests.support.config_rows import metrics_in
from tests.support.detections import make_result
from tests.support.logs import train, val, write_log


def read(path, shape):
    """A PNG of a stated (h, w), with something on it."""
    image = cv2.imread(str(path))
    assert image.shape == (*shape, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 30
    return image


def test_priors(run, tmp_path):
    output = run('show', 'priors', 'demo.py')
    assert output.splitlines()[-1] == 'work_dirs/demo/show/priors.png'
    first = read('work_dirs/demo/show/priors.png', (1126, 858))
    cv2.imwrite('white.png', np.full((20, 30, 3), 255, np.uint8))
    run('show', 'priors', 'demo.py', '--image', 'white.png', '--out-dir', tmp_path)
    other = read(tmp_path / 'priors.png', (1126, 858))
    assert (other == 255).mean() > (first == 255).mean() + 0.2  # drawn on the other image


def test_matches(run, tmp_path):
    command = ('show', 'matches', 'demo.py', '--out-dir', tmp_path)
    output = run(*command)
    objects, matched = map(int, re.search(r'(\d) objects, (\d+) of 2136 priors', output).groups())
    assert 1 <= objects <= 6 and matched >= objects
    assert 'hard negatives' not in output
    output = run(*command, '--checkpoint', 'weights.pth')
    assert f'{matched} of 2136 priors matched to them, {3 * matched} hard negatives' in output
    assert (tmp_path / 'matches.png').stat().st_size > 50_000
    for index in (0, 5):
        xml = Path(f'data/shapes/Annotations/{index + 1:06d}.xml').read_text()
        assert run(*command, '--index', index).startswith(f'{xml.count("<bndbox>")} objects')


def test_augment(run, tmp_path):
    def draw(*options):
        run('show', 'augment', 'demo.py', '--num', 2, '--draws', 3, '--out-dir', tmp_path, *options)
        return read(tmp_path / 'augment.png', (792, 1392))

    first = draw()
    assert np.array_equal(first, draw())  # the same seed, the same figure
    assert not np.array_equal(first, draw('--seed', 1))


def test_curves(run, demo_folder):
    for name, scale in (('one', 1), ('two', 2)):
        entries = [train(step, scale / step) for step in (10, 20)] + [val(1, 0.3 * scale)]
        write_log(demo_folder / name, '1', entries)
    assert run('show', 'curves', 'one', 'two') == 'one/show/curves.png\n'
    read('one/show/curves.png', (1045, 1210))


def test_errors(run, tmp_path):
    output = run('show', 'errors', 'demo.py', 'weights.pth', '--out-dir', tmp_path)
    xmls = [Path(f'data/shapes/Annotations/{n:06d}.xml').read_text() for n in range(7, 11)]
    (row,) = (line.split() for line in output.splitlines() if line.split()[:1] == ['all'])
    assert int(row[1]) == sum(xml.count('<difficult>0') for xml in xmls)
    figures = [str(tmp_path / name) for name in ('error_counts.png', 'errors.png')]
    assert output.splitlines()[-2:] == figures
    read(figures[0], (429, 1320))
    assert cv2.imread(figures[1]).shape[1] == 3 * 508  # three columns


def test_no_errors_no_sheet(run, tmp_path, monkeypatch):
    from ssd_plugin.evaluation import results

    def perfect(cfg, checkpoint, loader, device):
        for i in range(len(loader.dataset)):
            info = loader.dataset.get_data_info(i)
            truth = [(box['bbox'], box['bbox_label'], False) for box in info['instances']]
            yield make_result(truth, [(*box, 0.9) for *box, _ in truth], info['img_path'])

    monkeypatch.setattr(results, 'detect_all', perfect)
    output = run('show', 'errors', 'demo.py', 'weights.pth', '--out-dir', tmp_path)
    assert 'no errors' in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ['error_counts.png']
    output = run('show', 'pr', 'demo.py', 'weights.pth', '--out-dir', tmp_path)
    assert output.count('AP 1.000') == len(re.findall(r'objects\n', output)) + 1


def test_precision_and_recall_are_those_of_the_evaluation(run, tmp_path):
    options = ('--split', 'test', '--out-dir', tmp_path)
    output = run('show', 'pr', 'demo.py', 'weights.pth', *options)
    assert cv2.imread(str(tmp_path / 'pr.png')).shape[1] == 891
    cfg = Config.fromfile('demo.py')
    cfg.work_dir, cfg.load_from = str(tmp_path), 'weights.pth'
    evaluated = Runner.from_cfg(cfg).test()['pascal_voc/mAP']
    shown = float(re.search(r'mean +AP (\d\.\d+)', output).group(1))
    assert shown == pytest.approx(evaluated, abs=6e-4)


@pytest.mark.parametrize('split', ['test', 'val'])
def test_an_image_that_can_not_be_read_counts_as_in_evaluation(split, run, tmp_path, demo_folder):
    """Without workers, too, which the demo's loaders keep."""
    shutil.copytree('data', tmp_path / 'data')
    broken = tmp_path / 'data/shapes/JPEGImages/000008.jpg'
    broken.write_bytes(broken.read_bytes()[:500])
    config = tmp_path / 'broken.py'
    loader = f"dict(num_workers=0, dataset=dict(data_root='{tmp_path}/data/shapes/'))"
    config.write_text(
        f'_base_ = [{str(ROOT / "configs/demo_shapes.py")!r}]\n'
        f'val_dataloader = test_dataloader = train_dataloader = {loader}\n'
        'model = dict(test_cfg=dict(max_per_img=20))\n'
    )
    options = ('weights.pth', '--split', split, '--out-dir', tmp_path)
    output = run('show', 'pr', config, *options)
    shown = float(re.search(r'mean +AP (\d\.\d+)', output).group(1))
    run('test', config, 'weights.pth', '--work-dir', tmp_path / 'tested')
    evaluated = metrics_in(tmp_path / 'tested')['pascal_voc/mAP']
    if split == 'test':
        assert shown == pytest.approx(evaluated, abs=6e-4)
        assert '1 images can not be read, and nothing is found in them: ' in output
    run('show', 'errors', config, *options)
    assert (tmp_path / 'errors.png').is_file()


def test_importing_the_plugin_imports_nothing_of_what_only_commands_use(tmp_path):
    script = tmp_path / 'rooms.py'
    script.write_text(
        'import sys, ssd_plugin\n'
        "print(sorted({m.split('.')[1] for m in sys.modules if m.startswith('ssd_plugin.')}))"
    )
    rooms = run_warm(script, cwd=tmp_path)
    assert "'models'" in rooms
    for room in ('analysis', 'export', 'inference', 'visualization'):
        assert f"'{room}'" not in rooms
