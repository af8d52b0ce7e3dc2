"""--size: a detector of another network input is trained, evaluated and exported."""

import pytest
from mmengine.config import Config

from tests.support.commands import ROOT, run_warm
from tests.support.drawn_data import write_coco, write_shapes

TWO_STEPS = (
    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1',
    *(f'{split}_dataloader.{name}' for split in ('train', 'val', 'test')
      for name in ('num_workers=0', 'persistent_workers=False', 'dataset.indices=4')),
    'train_dataloader.batch_size=2', 'val_dataloader.batch_size=2', 'model.test_cfg.score_thr=0',
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_shapes(tmp_path / 'data/shapes')
    write_coco(tmp_path / 'data/coco')
    return tmp_path


def command(name, *args, cwd, **how):
    return run_warm(ROOT / f'tools/{name}.py', *args, cwd=cwd, **how)


@pytest.mark.parametrize(
    ('name', 'size', 'last_stride'),
    [
        ('demo_shapes', (320, 320), 64),
        ('demo_shapes', (480, 270), (64, 54)),
        ('ssdlite320_mobilenetv3_coco', (480, 270), (480, 270)),
    ],
)
def test_a_detector_of_another_size_trains_evaluates_and_exports(name, size, last_stride, folder):
    option = 'x'.join(map(str, size))
    config = ROOT / f'configs/{name}.py'
    command('train', config, '--size', option, '--work-dir', 'run', '--cfg-options', *TWO_STEPS,
            cwd=folder)  # fmt: skip
    resolved = Config.fromfile(folder / f'run/{name}.py')
    priors = resolved.model.bbox_head.anchor_generator
    assert priors.strides[-1] == last_stride
    assert resolved.test_dataloader.dataset.pipeline[1].scale == size
    written = f'run/{name}.py', 'run/epoch_1.pth'
    assert 'mAP' in command('test', *written, '--work-dir', 'test', cwd=folder)
    said = command('export_onnx', *written, 'out.onnx', cwd=folder)
    assert f'images (batch, 3, {size[1]}, {size[0]})' in said


def test_own_data_are_trained_on_at_another_size(folder):
    write_shapes(folder / 'mine', ('cat', 'dog', 'cat', 'dog', 'cat'))
    command('train', ROOT / 'configs/demo_shapes.py', '--data-root', 'mine', '--size', '200',
            '--work-dir', 'run', '--cfg-options', *TWO_STEPS, cwd=folder)  # fmt: skip
    resolved = Config.fromfile(folder / 'run/demo_shapes_on_mine.py')
    assert resolved.model.bbox_head.anchor_generator.input_size == 200
    assert resolved.classes == ('cat', 'dog')
    # The resolved config with the resolved size is the same detector.
    said = command('test', 'run/demo_shapes_on_mine.py', 'run/epoch_1.pth', '--size', '200x200',
                   '--work-dir', 'test', cwd=folder)  # fmt: skip
    assert 'mAP' in said


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--size', '12by7'], "'12by7' is no size: write 512 or 640x384"),
        (['--size', '640x'], "'640x' is no size"),
        (['--size', '0'], "'0' is no size"),
        (['--cfg-options', 'model.bbox_head.anchor_generator.input_size=300'], 'input_size is'),
        (
            ['--cfg-options', 'train_dataloader.dataset.pipeline.3.scale=(200,200)'],
            '200 x 200 in train',
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(args, message, folder):
    config = ROOT / 'configs/demo_shapes.py'
    said = command('train', config, '--work-dir', 'run', *args, cwd=folder, fails=True)
    assert message in said and 'Traceback' not in said
    assert not (folder / 'run').exists()
