"""What to type after a training: the commands that go on with it, filled in."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.engine.runner.checkpoint_files import LAST_CHECKPOINT


def print_next_steps(cfg: Config, runner: Runner) -> None:
    """Name the checkpoint to use, and print commands that test, detect and export with it."""
    if not is_main_process():
        return
    work_dir = Path(cfg.work_dir)
    pointer = work_dir / LAST_CHECKPOINT
    if not pointer.is_file():  # the config saves none
        return
    last = Path(pointer.read_text().strip())
    best = Path(runner.message_hub.runtime_info.get('best_ckpt') or last)
    checkpoint = best if best.is_file() else last
    if checkpoint == last:
        print(f'Checkpoint: {near(last)}')
    else:
        print(f'Checkpoints: {near(best)}, the best; {near(last)}, the last')
    config = near(work_dir / Path(cfg.filename).name)
    if cfg.get('test_dataloader'):
        print_command('test.py', config, near(checkpoint))
    images = folder_of_images(runner)
    print_command('detect.py', config, near(checkpoint), images, '--out', near(work_dir / 'out'))
    model = near(work_dir / 'detector.onnx')
    print_command('export_onnx.py', config, near(checkpoint), model)
    sys.stdout.flush()


def print_command(tool: str, *args: str) -> None:
    """Print a command of the folder that this one is in."""
    print('  python', shlex.join([str(Path(sys.argv[0]).with_name(tool)), *args]))


def folder_of_images(runner: Runner) -> str:
    """The folder of an image that was evaluated on, or else trained on."""
    loop = runner.val_loop or runner.train_loop
    dataset = leaf_datasets(loop.dataloader.dataset)[0]
    return near(Path(dataset.get_data_info(0)['img_path']).parent)


def near(path: Path) -> str:
    """A path as short as it can be: below the current directory relative to it."""
    path = path.absolute()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
