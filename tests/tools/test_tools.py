"""The commands, as a user types them, from a directory of their own."""

import json
import pickle
import re
import shutil
from pathlib import Path

import mmdet
import pytest
import torch

from tests.support.commands import ROOT, run, run_warm
from tests.support.in_processes import run_ranks
from tests.support.logs import logged_losses
from tests.support.tiny_training import PLAIN, write_training
from tests.support.weights import assert_same, load

TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
README = (ROOT / 'README.md').read_text()
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'

CONFIG = (
    PLAIN
    + """
prepare_data = 'python tools/prepare_data.py shapes DATA'
train_cfg['max_epochs'] = 2
param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=6, by_epoch=False)]
default_hooks['checkpoint'] = dict(type='CheckpointHook', interval=1)
default_hooks['visualization'] = dict(type='DetVisualizationHook')
custom_hooks = [dict(type='DataFaultHook')]
auto_scale_lr = dict(enable=False, base_batch_size=4)
"""
)


@pytest.mark.parametrize('tool', sorted((ROOT / 'tools').glob('[a-z]*.py')), ids=lambda p: p.stem)
def test_a_command_that_imports_mmdetection_imports_the_plugin_before(tool):
    """Tests run most commands in a process that has imported both, where the order is no matter."""
    lines = tool.read_text().splitlines()
    needs = [i for i, line in enumerate(lines) if re.match(r' *(from|import) (mmdet|mmcv)\b', line)]
    plugin = re.compile(r'set_up\(|prepare\(|import ssd_plugin|from ssd_plugin')
    imports = [i for i, line in enumerate(lines) if plugin.search(line)]
    assert not needs or min(imports) < min(needs)


def mean_ap(output):
    return re.findall(r'pascal_voc/mAP: (\d\.\d+)', output)[-1]


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config of a very small detector, with six images to train on and two to test on."""
    folder = tmp_path_factory.mktemp('tools')
    path = write_training(folder, CONFIG, num_train=6)
    faulty = folder / 'data' / 'Annotations' / '000003.xml'
    nowhere = '<name>star</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>30</ymax>'
    end = '</annotation>'
    faulty.write_text(faulty.read_text().replace(end, f'<object>{nowhere}</bndbox></object>{end}'))
    return path


@pytest.fixture(scope='module')
def trained(config):
    """Work directory and output of two epochs of training, by the work directory's default."""
    output = run_warm(TRAIN, config, '--verbose', cwd=config.parent)
    return config.parent / 'work_dirs' / 'tiny', output


def test_training_writes_checkpoints_evaluates_and_reports_faulty_boxes(trained):
    work_dir, output = trained
    assert load(work_dir / 'epoch_2.pth')['meta']['epoch'] == 2
    assert float(mean_ap(output)) >= 0
    assert output.count('1 without area') == 1
    assert 'in 1 of 6 images: 000003.jpg' in output
    assert '000003.jpg' in (work_dir / 'data_faults.txt').read_text()


def test_resumed_training_ends_where_uninterrupted_training_does(trained, config, tmp_path):
    work_dir, _ = trained
    shutil.copy(work_dir / 'epoch_1.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    options = ['--work-dir', tmp_path, '--resume', '--verbose']
    output = run_warm(TRAIN, config, *options, cwd=tmp_path)
    assert 'resumed epoch: 1, iter: 3' in output
    assert 'Epoch(train) [1]' not in output
    first = load(work_dir / 'epoch_1.pth')
    resumed, uninterrupted = load(tmp_path / 'epoch_2.pth'), load(work_dir / 'epoch_2.pth')
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(resumed[part], uninterrupted[part])
    weight = 'bbox_head.cls_convs.0.0.weight'
    assert not torch.equal(first['state_dict'][weight], resumed['state_dict'][weight])


def test_two_processes_train_on_cpus_with_amp_from_a_named_checkpoint(trained, config, tmp_path):
    output, _ = run_ranks(
        2, TRAIN, config, '--launcher', 'pytorch', '--amp', '--auto-scale-lr', '--verbose',
        '--resume', trained[0] / 'epoch_1.pth', '--work-dir', tmp_path, cwd=tmp_path,
    )  # fmt: skip
    assert 'GPU number: 2' in output
    assert 'resumed epoch: 1' in output
    assert 'in 1 of 6 images' in output, 'each process sees three of them'
    written = (tmp_path / 'tiny.py').read_text()
    assert "type='CPUAmpOptimWrapper'" in written
    assert "backend='gloo'" in written
    both, alone = load(tmp_path / 'epoch_2.pth'), load(trained[0] / 'epoch_2.pth')
    assert both['meta']['iter'] == 2 * 2, 'two processes share an epoch of three batches'
    assert alone['meta']['iter'] == 6


def test_evaluation_agrees_with_training_and_with_mmdetections_tool(trained, config, tmp_path):
    work_dir, training = trained
    checkpoint = work_dir / 'epoch_2.pth'
    options = [config, checkpoint, '--work-dir', tmp_path, '--out']
    drawing = ['--show-dir', 'drawn', '--verbose']
    ours = run_warm(TEST, *options, 'ours.pkl', *drawing, cwd=tmp_path)
    theirs = run_warm(MMDET_TOOLS / 'test.py', *options, 'theirs.pkl', cwd=tmp_path)
    assert mean_ap(ours) == mean_ap(theirs) == mean_ap(training)
    our_detections, their_detections = (
        pickle.loads((tmp_path / f'{name}.pkl').read_bytes()) for name in ('ours', 'theirs')
    )
    assert len(our_detections) == 2
    for one, other in zip(our_detections, their_detections):
        assert len(one['pred_instances']['labels']) > 0
        assert_same(one['pred_instances'], other['pred_instances'])
    drawn = {path.name for path in tmp_path.glob('*/drawn/*')}
    assert drawn == {'000007.jpg', '000008.jpg'}


def test_evaluation_on_mirrored_views_in_bfloat16(trained, config, tmp_path):
    output = run_warm(
        TEST, config, trained[0] / 'epoch_2.pth', '--tta', '--amp', '--verbose',
        '--out', 'views.pkl',        '--cfg-options', 'model.test_cfg.max_per_img=5', cwd=tmp_path,
    )  # fmt: skip
    assert mean_ap(output)
    detections = pickle.loads((tmp_path / 'views.pkl').read_bytes())
    assert [len(one['pred_instances']['labels']) for one in detections] == [5, 5]
    assert not any(one['flip'] for one in detections), 'compared with mirrored ground truth'


def test_mmdetections_training_tool_runs_our_config(trained, config, tmp_path):
    """In a new process, where no scope is the default yet, as the README says to."""
    (program,) = re.findall(r'python -c "(import ssd_plugin, runpy.*?)" ', README, re.DOTALL)
    run(
        '-c', program.replace('\\\n', ''), MMDET_TOOLS / 'train.py', config, '--work-dir', tmp_path,
        '--cfg-options', 'train_cfg.max_epochs=1', 'runner_type=ResumableRunner', cwd=tmp_path,
    )  # fmt: skip
    theirs, ours = load(tmp_path / 'epoch_1.pth'), load(trained[0] / 'epoch_1.pth')
    assert_same(theirs['state_dict'], ours['state_dict'])


def test_tensorboard_reads_the_losses_that_the_log_has(trained, config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_warm(TRAIN, config, '--tensorboard', '--work-dir', tmp_path, cwd=tmp_path)
    (events,) = tmp_path.rglob('events.out.tfevents.*')
    accumulator = EventAccumulator(str(events.parent)).Reload()
    shown = {event.step: event.value for event in accumulator.Scalars('loss')}
    assert len(shown) == 6
    assert shown == pytest.approx(logged_losses(tmp_path))


def test_an_error_of_the_disk_in_training_keeps_its_traceback(config, tmp_path):
    """Only where inputs are read and checked is a file's error the user's mistake."""
    (tmp_path / 'epoch_1.pth.unfinished').mkdir()  # where the first checkpoint is to be written
    said = run_warm(TRAIN, config, '--work-dir', tmp_path, cwd=tmp_path, fails=True)
    assert 'Traceback' in said and said.strip().splitlines()[-1].startswith('IsADirectoryError')


# --- a user's mistakes -----------------------------------------------------------------------

NOWHERE = [f'{part}_dataloader.dataset.data_root=nothing/' for part in ('train', 'val', 'test')]
MISTAKES = {
    'no config': (TRAIN, ['nowhere.py'], 'no config file nowhere.py'),
    'broken config': (TRAIN, ['broken.py'], 'broken.py'),
    'no base': (TRAIN, ['baseless.py'], 'elsewhere.py'),
    'no checkpoint': (TEST, ['CONFIG', 'nowhere.pth'], 'nowhere.pth'),
    'no resume': (TRAIN, ['CONFIG', '--resume', 'nowhere.pth'], 'nowhere.pth'),
    'no pair': (TRAIN, ['CONFIG', '--cfg-options', 'size'], 'KEY=VALUE'),
    'no list': (TRAIN, ['CONFIG', '--cfg-options', 'size=[1,(2]'], 'KEY=VALUE'),
    'not in it': (TRAIN, ['CONFIG', '--cfg-options', 'size.x=1'], 'size'),
    'beyond it': (TRAIN, ['CONFIG', '--cfg-options', 'pipeline.9.type=X'], '--cfg-options'),
    'no base batch': (TRAIN, ['scaleless.py', '--auto-scale-lr'], 'base_batch_size'),
    'no pickle': (TEST, ['CONFIG', 'any.pth', '--out', 'a.json'], 'a.json'),
    'classes alone': (TRAIN, ['CONFIG', '--classes', 'a,b'], '--classes needs --data-root'),
    'test classes': (TEST, ['CONFIG', 'any.pth', '--classes', 'a'], '--classes needs --data-root'),
    'no folder': (TRAIN, ['CONFIG', '--data-root', 'nowhere'], 'no folder nowhere'),
    'no test folder': (TEST, ['CONFIG', 'any.pth', '--data-root', 'no'], 'no folder no'),
    'no data': (TRAIN, ['CONFIG', '--cfg-options', *NOWHERE], 'nothing/ImageSets'),
    'no test data': (TEST, ['CONFIG', 'any.pth', '--cfg-options', *NOWHERE], 'nothing/ImageSets'),
    'how to get data': (TRAIN, ['CONFIG', '--cfg-options', *NOWHERE], 'prepare_data.py shapes DA'),
    'a fault in the code': (TRAIN, ['faulty.py'], 'ZeroDivisionError'),
}
# Runs commands one after the other where neither PyTorch nor MMDetection can be imported.
WITHOUT_TORCH = """
import json, runpy, sys
sys.modules.update(torch=None, mmdet=None)  # to import them is an error
sys.path.insert(0, sys.argv[1])
said = {}
for case, argv in json.loads(sys.argv[2]).items():
    sys.argv = argv
    try:
        runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as end:
        said[case] = end.code
    except Exception as error:
        said[case] = [type(error).__name__]
print(json.dumps(said))
"""


@pytest.fixture(scope='module')
def answers(config):
    """What ends each command of MISTAKES, all of which run before PyTorch is imported."""
    folder = config.parent
    (folder / 'broken.py').write_text('model = dict(')
    (folder / 'baseless.py').write_text("_base_ = 'elsewhere.py'")
    (folder / 'scaleless.py').write_text('auto_scale_lr = dict(enable=False)')
    (folder / 'faulty.py').write_text('lr = 0.1 / 0')
    (folder / 'any.pth').touch()
    commands = {
        case: [str(tool), *(str(config) if arg == 'CONFIG' else arg for arg in args)]
        for case, (tool, args, _) in MISTAKES.items()
    }
    said = run('-c', WITHOUT_TORCH, TRAIN.parent, json.dumps(commands), cwd=folder)
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize('case', MISTAKES)
def test_a_mistake_is_told_in_one_line_before_pytorch_is_imported(case, answers):
    *_, expected = MISTAKES[case]
    if case == 'a fault in the code':  # it keeps its traceback
        assert answers[case] == [expected]
    else:
        assert expected in answers[case] and '\n' not in answers[case]


def test_a_config_may_name_one_of_the_plugins_as_its_base(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'ssd_plugin::ssd300_voc.py'")
    output = run_warm(TRAIN, 'mine.py', cwd=tmp_path, fails=True)
    assert output.startswith('data/VOCdevkit/'), 'it was read, and its data are missing'
    assert len(output.splitlines()) == 1
