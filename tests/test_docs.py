"""Every command on a page runs, in the page's order, as if typed at the root of a clone."""

import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from torchvision.models.detection import ssd300_vgg16

from tests.support.caffe_ssd import MODELS, caffemodel, random_weights
from tests.support.commands import ROOT, run_warm
from tests.support.drawn_data import VOC_CLASSES, write_coco, write_shapes
from tests.support.exported import lively_detector
from tests.support.peers import torchvision_model
from tests.support.weights import TRAINED

PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]
)
FENCE = re.compile(r'^( *)```bash\n(.*?)^ *```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)#\s]+)(?:#[^)]*)?\)')
API = re.compile(r'^::: (\S+)\n +options: \{members: \[(.*?)\]\}$', re.MULTILINE)

# What needs a network, a machine to itself or minutes, and where it is run instead.
ELSEWHERE = {
    'make ': 'by hand, and by the workflows',
    'git clone': 'by hand: it is from the network',
    'pip install': 'the Makefile, with the same extras',
    'mim ': 'test_packaging.py, without mim: what it does',
    'torchrun': 'test_tools.py and test_processes.py, with a smaller model',
    'bash tools/dist_': 'test_processes.py',
    'bash tools/slurm_': 'test_processes.py',
    'python tools/prepare_data.py voc': "test_prepare_data.py, from the test's own server",
    'python tools/prepare_data.py shapes': 'test_shapes.py; the data are here already',
    'python tools/benchmark.py': 'test_benchmark.py, part by part',
    'python -c': 'test_tools.py, the same program',
    'python -m pytest': 'this is pytest',
    'python -m venv litert': 'the set litert of tests/long/matrix.py',
    'litert/bin/': 'test_export_tflite.py, in that set',
    'python -m tests.long.': 'the tests in tests/long, for fewer rounds',
    'tensorboard': 'by hand: it is a server',
}
# Files that a page takes for granted, and who makes them.
GIVEN = {
    'VGG_VOC0712_SSD_300x300_iter_120000.caffemodel': lambda: caffemodel(
        random_weights(MODELS['ssd300_caffe_voc'], seed=0)
    ),
    'ssd300_vgg16_coco-b556d3b4.pth': lambda: torchvision_model(ssd300_vgg16, 91).state_dict(),
    'work_dirs/ssd300_coco/iter_240000.pth': lambda: untrained('configs/ssd300_coco.py'),
}


def commands_of(page):
    """The commands in a page's bash blocks, each a list of words."""
    for _, block in FENCE.findall((ROOT / page).read_text()):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """What a command sees of a clone of this project whose owner has data in every layout."""
    root = tmp_path_factory.mktemp('clone')
    for name in ('configs', 'tools', 'tests', 'ssd_plugin', 'docs'):
        (root / name).symlink_to(ROOT / name)
    data = root / 'data'
    write_shapes(data / 'shapes')
    write_shapes(data / 'mine', ('cat', 'dog', 'cat', 'dog', 'cat'), num_train=8, num_test=2)
    for year in ('VOC2007', 'VOC2012'):
        write_shapes(data / 'VOCdevkit' / year, VOC_CLASSES, num_test=1)
    write_coco(data / 'coco')
    cells = ('RBC', 'WBC', 'Platelets', 'RBC', 'WBC')
    write_shapes(data / 'bccd', cells, num_train=2, num_test=2)
    return root


@pytest.fixture(scope='module')
def done():
    """Commands that have run: many are on several pages."""
    return set()


@pytest.mark.parametrize('page', [page for page in PAGES if list(commands_of(page))])
def test_the_commands_of_a_page_run(page, clone, done, monkeypatch):
    monkeypatch.chdir(clone)
    made = {}
    for words in commands_of(page):
        line = shlex.join(words)
        if line in done or line.startswith(tuple(ELSEWHERE)):
            continue
        done.add(line)
        write_checkpoints(words, made)
        try:
            execute(words, clone)
        except (AssertionError, subprocess.CalledProcessError) as error:
            pytest.fail(f'{page}: {line}\n{error}')


def test_every_command_that_runs_elsewhere_is_on_a_page():
    lines = [shlex.join(words) for page in PAGES for words in commands_of(page)]
    assert 'python tools/train.py configs/ssd300_voc.py --amp' in lines
    for prefix in ELSEWHERE:
        assert any(line.startswith(prefix) for line in lines), prefix


@pytest.mark.parametrize('page', PAGES)
def test_links_within_the_project_lead_somewhere(page):
    for target in LINK.findall((ROOT / page).read_text()):
        if '://' not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_the_api_page_has_every_public_class_of_its_rooms():
    rooms = dict(API.findall((ROOT / 'docs/api.md').read_text()))
    for room, members in rooms.items():
        public = {name for name in import_module(room).__all__ if name != 'hooks'}
        assert set(members.split(', ')) == public, room


def execute(words, folder):
    """Run a command, training of it no longer than a few images take."""
    if words[1].startswith('tools/'):
        run_warm(folder / words[1], *shortened(words[1], words[2:]), cwd=folder)
    else:
        assert words[:2] == ['python', '-m']
        script = folder / words[2].replace('.', '/') / '__main__.py'
        run_warm(script, *words[3:], cwd=folder)


def write_checkpoints(words, made):
    """Write the checkpoints that a command reads and that no command before it has written.

    ``made`` has what they were made for: the next command may be about other classes.
    """
    classes = ('cat', 'dog') if 'data/mine' in words else None
    config = next((word for word in words if word.endswith('.py') and 'tools/' not in word), None)
    for word in words:
        path = Path(word)
        if path.suffix == '.caffemodel':
            path.write_bytes(GIVEN[word]())
        if path.suffix != '.pth' or (path.exists() and made.get(word) in (None, (config, classes))):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if word in GIVEN:
            torch.save(GIVEN[word](), path)
        elif config or trained_by(path).is_file():
            torch.save(untrained(config or trained_by(path), classes), path)
            made[word] = config, classes


def trained_by(path):
    """The config that training writes a checkpoint of this path by, if nothing else is said."""
    return Path('configs', f'{path.parent.name}.py')


def untrained(config, classes=None):
    """A checkpoint as training by a config writes it, with weights from which detections come."""
    cfg = Config.fromfile(config)
    if classes:
        cfg.model.bbox_head.num_classes = len(classes)
    else:
        dataset = cfg.val_dataloader.dataset
        classes = dataset.get('metainfo', DATASETS.get(dataset.type).METAINFO)['classes']
    for key in TRAINED.values():
        cfg.model.backbone.pop(key, None)
    size = cfg.model.bbox_head.anchor_generator.input_size
    model = lively_detector(cfg, (size, size))
    return dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes)))


def shortened(tool, args):
    """The arguments, with as little training and as few processes as possible."""
    if tool not in ('tools/train.py', 'tools/test.py'):
        return args
    cfg = Config.fromfile(args[0])
    is_vgg = cfg.model.backbone.type == 'SSDVGG'  # takes seconds for an image
    options = ['model.backbone.init_cfg=None', 'model.test_cfg.score_thr=0']
    if cfg.model.backbone.type in TRAINED:  # not to be downloaded
        options += [f'model.backbone.{TRAINED[cfg.model.backbone.type]}=None']
    for split in ('train', 'val', 'test'):
        options += [f'{split}_dataloader.num_workers=0']
        options += [f'{split}_dataloader.persistent_workers=False']
    if tool == 'tools/train.py':
        loop = 'iters' if cfg.train_cfg.type == 'IterBasedTrainLoop' else 'epochs'
        options += [f'train_dataloader.batch_size={1 if is_vgg else 2}', f'train_cfg.max_{loop}=1']
        options += ['train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    if is_vgg and '--data-root' not in args:
        options += ['val_dataloader.dataset.indices=1', 'test_dataloader.dataset.indices=1']
    if is_vgg:  # minutes, where bfloat16 is emulated; test_tools.py has it, with a small model
        args = [arg for arg in args if arg != '--amp']
    if '--cfg-options' not in args:
        return [*args, '--cfg-options', *options]
    end = args.index('--cfg-options') + 1
    while end < len(args) and not args[end].startswith('--'):
        end += 1
    return [*args[:end], *options, *args[end:]]  # after the page's own, so that these hold
