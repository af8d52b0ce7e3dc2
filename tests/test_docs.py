"""Every command on a page runs, in the page's order, as if it were typed at the root of a clone."""

import re
import shlex
import subprocess
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torchvision.models.detection import ssd300_vgg16

from tests.support.commands import ROOT, run, run_warm
from tests.support.peers import (
    make_outputs_spread,
    random_image,
    randomise_norms,
    torchvision_model,
)
from tests.test_configs import VOC_CLASSES, write_coco, write_shapes

PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]
)
FENCE = re.compile(r'^( *)```bash\n(.*?)^ *```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)#\s]+)(?:#[^)]*)?\)')

# What takes a network, a machine to itself or minutes, and where it is run instead.
ELSEWHERE = {
    'make ': '.ci/run, and by hand',
    'pip install': 'the Makefile, with the same extras',
    'mim ': 'test_packaging.py, without mim: what it does',
    'torchrun': 'test_tools.py and test_processes.py, with a smaller model',
    'bash tools/dist_': 'test_processes.py',
    'bash tools/slurm_': 'test_processes.py',
    'python tools/prepare_data.py voc': "test_prepare_data.py, from a server of the test's",
    'python tools/prepare_data.py shapes': 'test_shapes.py; the data are here already',
    'python tools/benchmark.py': 'test_benchmark.py, part by part',
    'python -m pytest': 'it is this',
    'python tests/': 'test_resume.py, test_fault_report.py and test_soak.py, for fewer rounds',
    'tensorboard': 'by hand: it is a server',
}
# Files that a page takes as given, and who makes them.
GIVEN = {
    'ssd300_vgg16_coco-b556d3b4.pth': lambda: torchvision_model(ssd300_vgg16, 91).state_dict(),
    'work_dirs/ssd300_coco/iter_240000.pth': lambda: untrained('configs/ssd300_coco.py', False),
}


def commands_of(page):
    """The commands in a page's bash blocks, each a list of words."""
    for _, block in FENCE.findall((ROOT / page).read_text()):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A few drawn images in every layout that the pages speak of."""
    root = tmp_path_factory.mktemp('data')
    write_shapes(root / 'shapes')
    write_shapes(root / 'mine', ('cat', 'dog', 'cat', 'dog', 'cat'), num_train=8, num_test=2)
    for year in ('VOC2007', 'VOC2012'):
        write_shapes(root / 'VOCdevkit' / year, VOC_CLASSES, num_test=1)
    write_coco(root / 'coco')
    cells = ('RBC', 'WBC', 'Platelets', 'RBC', 'WBC')
    write_shapes(root / 'bccd', cells, num_train=2, num_test=2)
    return root


@pytest.fixture(scope='module')
def clone(data, tmp_path_factory):
    """What a command sees of a clone of this project whose owner has data."""
    tmp_path = tmp_path_factory.mktemp('clone')
    for name in ('configs', 'tools', 'tests', 'ssd_plugin', 'docs'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / 'data').symlink_to(data)
    (tmp_path / 'path/to').mkdir(parents=True)
    (tmp_path / 'path/to/mmdetection').symlink_to(Path(mmdet.__file__).parent / '.mim')
    return tmp_path


@pytest.fixture(scope='module')
def done():
    """Commands that have run: many are on several pages."""
    return set()


@pytest.mark.parametrize('page', [page for page in PAGES if list(commands_of(page))])
def test_the_commands_of_a_page_run(page, clone, done, monkeypatch):
    monkeypatch.chdir(clone)
    made = set()
    for words in commands_of(page):
        line = shlex.join(words)
        if line in done or any(line.startswith(prefix) for prefix in ELSEWHERE):
            continue
        done.add(line)
        prepare(words, made)
        try:
            execute(words, clone)
        except (AssertionError, subprocess.CalledProcessError) as error:
            pytest.fail(f'{page}: {line}\n{error}')


def test_every_command_that_runs_elsewhere_is_on_a_page():
    lines = [shlex.join(words) for page in PAGES for words in commands_of(page)]
    for prefix in ELSEWHERE:
        assert any(line.startswith(prefix) for line in lines), prefix


@pytest.mark.parametrize('page', PAGES)
def test_links_within_the_project_lead_somewhere(page):
    for target in LINK.findall((ROOT / page).read_text()):
        if '://' not in target:
            assert ((ROOT / page).parent / target).exists(), target


def execute(words, folder):
    """Run a command, training of it no longer than a few images take."""
    if words[0] == 'python' and words[1].startswith('tools/'):
        run_warm(folder / words[1], *shortened(words[1], words[2:]), cwd=folder)
    elif words[0] == 'python':
        run(*words[1:], cwd=folder)
    else:
        subprocess.run(words, cwd=folder, check=True, capture_output=True)


def prepare(words, made):
    """Make the checkpoints that a command reads and no command before it has written.

    What is ``made`` so is made anew for each command: the next may be about other classes.
    """
    config = next((word for word in words if word.endswith('.py') and 'tools/' not in word), None)
    for word in words:
        path = Path(word)
        if path.suffix != '.pth' or (path.exists() and word not in made):
            continue
        if word in GIVEN:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(GIVEN[word](), path)
        elif config and not words[1].startswith('tools/convert'):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(untrained(config, 'data/mine' in words), path)
            made.add(word)


def untrained(config, on_own_data):
    """A checkpoint as training by a config writes it, with weights from which detections come."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config)
    dataset = cfg.val_dataloader.dataset
    classes = dataset.get('metainfo', DATASETS.get(dataset.type).METAINFO)['classes']
    if on_own_data:
        classes = ('cat', 'dog')
        cfg.model.bbox_head.num_classes = 2
    cfg.model.backbone.pop('weights', None)
    model = MODELS.build(cfg.model).eval()
    randomise_norms(model)
    layers = [
        [[m for m in level.modules() if isinstance(m, torch.nn.Conv2d)][-1] for level in convs]
        for convs in (model.bbox_head.cls_convs, model.bbox_head.reg_convs)
    ]
    make_outputs_spread(*layers, background=-1, num_scores=model.bbox_head.cls_out_channels, lead=9)
    size = model.bbox_head.prior_generator.input_size
    image = torch.from_numpy(random_image(*size[::-1])).permute(2, 0, 1)
    with torch.no_grad():
        batch = model.data_preprocessor(dict(inputs=[image], data_samples=[DetDataSample()]))
        model(batch['inputs'], mode='tensor')
    return dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes)))


def shortened(tool, args):
    """The arguments, with the least there can be of training and of processes."""
    if tool not in ('tools/train.py', 'tools/test.py'):
        return list(args)
    cfg = Config.fromfile(args[0])
    options = [f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')]
    options += [
        f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')
    ]
    options += ['model.backbone.init_cfg=None', 'model.test_cfg.score_thr=0']
    if tool == 'tools/train.py':
        loop = 'iters' if cfg.train_cfg.type == 'IterBasedTrainLoop' else 'epochs'
        batch_size = 1 if cfg.model.backbone.type == 'SSDVGG' else 2  # VGG-16 takes seconds for one
        options += [f'train_dataloader.batch_size={batch_size}', 'train_cfg.val_interval=1']
        options += [f'train_cfg.max_{loop}=1', 'default_hooks.checkpoint.interval=1']
    if cfg.model.backbone.type == 'SSDVGG':
        # Minutes, where bfloat16 is emulated; test_tools.py has it, with a small model.
        args = [arg for arg in args if arg != '--amp']
    if '--cfg-options' not in args:
        return [*args, '--cfg-options', *options]
    at = args.index('--cfg-options') + 1
    while at < len(args) and not args[at].startswith('--'):
        at += 1
    return [*args[:at], *options, *args[at:]]  # after the page's own, so that these hold


def test_the_bash_blocks_are_found():
    assert ['python', 'tools/train.py', 'configs/ssd300_voc.py'] in list(commands_of('README.md'))
