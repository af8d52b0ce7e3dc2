"""The commands, as a user types them, from a directory of their own."""

import json
import pickle
import re
import shutil
from pathlib import Path

import mmdet
import pytest
import torch

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.support.commands import ROOT, run, run_warm

TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
# MMDetection itself can only be imported after the plugin, where mmcv has no compiled ops.
WITH_PLUGIN = (
    'import ssd_plugin, runpy, sys; sys.argv = sys.argv[1:]; '
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

CONFIG = """
custom_imports = dict(imports=['ssd_plugin'])
default_scope = 'mmdet'
prepare_data = 'python tools/prepare_data.py shapes DATA'
size = 64
classes = {classes}
resize = dict(type='Resize', scale=(size, size), keep_ratio=False)
load = [dict(type='LoadImageFromFile')]
data = dict(type='VOCDataset', data_root={data!r}, metainfo=dict(classes=classes),
            data_prefix=dict(sub_data_root=''))
pipeline = [*load, dict(type='LoadAnnotations', with_bbox=True), dict(type='TrainOnDifficult'),
            resize, dict(type='PackDetInputs')]
test_pipeline = [*load, resize, dict(type='LoadAnnotations', with_bbox=True), dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data, ann_file='ImageSets/Main/trainval.txt', pipeline=pipeline))
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data, ann_file='ImageSets/Main/test.txt', pipeline=test_pipeline, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='VOCMetric', metric='mAP')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[128] * 3, std=[64] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3),
                  norm_eval=False, frozen_stages=-1),
    bbox_head=dict(
        type='SSDMultiBoxHead', num_classes=len(classes), in_channels=(16, 32, 64),
        anchor_generator=dict(
            type='SSDPriorGenerator', strides=[8, 16, 32], ratios=[[2]] * 3,
            min_sizes=[10, 22, 40], max_sizes=[22, 40, 58], input_size=size)),
    train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)),
    test_cfg=dict(nms_pre=400, score_thr=0.01, nms=dict(type='nms', iou_threshold=0.45),
                  max_per_img=20))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=6, by_epoch=False)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=1),
    visualization=dict(type='DetVisualizationHook'))
custom_hooks = [dict(type='DataFaultHook')]
visualizer = dict(type='DetLocalVisualizer')
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
"""


def load(path):
    return torch.load(path, map_location='cpu')


def assert_same(one, other):
    """Equal nested states, bit by bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            assert_same(left, right)
    else:
        assert one == other


def mean_ap(output):
    return re.findall(r'pascal_voc/mAP: (\d\.\d+)', output)[-1]


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config of a very small detector, with six images to train on and two to test on."""
    folder = tmp_path_factory.mktemp('tools')
    data = write_voc_shapes(folder / 'data', num_train=6, num_test=2, seed=0)
    faulty = data / 'Annotations' / '000003.xml'
    nowhere = '<name>star</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>30</ymax>'
    faulty.write_text(faulty.read_text().replace(
        '</annotation>', f'<object>{nowhere}</bndbox></object></annotation>'
    ))  # fmt: skip
    path = folder / 'tiny.py'
    path.write_text(CONFIG.format(classes=CLASSES, data=f'{data}/'))
    return path


@pytest.fixture(scope='module')
def trained(config):
    """Work directory and output of two epochs of training, by the work directory's default."""
    output = run(TRAIN, config, cwd=config.parent)
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
    output = run_warm(TRAIN, config, '--work-dir', tmp_path, '--resume', cwd=tmp_path)
    assert 'resumed epoch: 1, iter: 3' in output
    assert 'Epoch(train) [1]' not in output
    first = load(work_dir / 'epoch_1.pth')
    resumed, uninterrupted = load(tmp_path / 'epoch_2.pth'), load(work_dir / 'epoch_2.pth')
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(resumed[part], uninterrupted[part])
    weight = 'bbox_head.cls_convs.0.0.weight'
    assert not torch.equal(first['state_dict'][weight], resumed['state_dict'][weight])


def test_torchrun_trains_on_cpus_with_amp_from_a_named_checkpoint(trained, config, tmp_path):
    checkpoint = trained[0] / 'epoch_1.pth'
    output = run(
        '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
        TRAIN, config, '--launcher', 'pytorch', '--amp', '--resume', checkpoint,
        '--work-dir', tmp_path, '--auto-scale-lr', cwd=tmp_path,
    )  # fmt: skip
    assert 'GPU number: 2' in output
    assert 'resumed epoch: 1' in output
    assert 'in 1 of 6 images' in output, 'each process sees three of them'
    written = (tmp_path / 'tiny.py').read_text()
    assert "type='CPUAmpOptimWrapper'" in written
    assert "backend='gloo'" in written
    both, alone = load(tmp_path / 'epoch_2.pth'), load(trained[0] / 'epoch_2.pth')
    assert both['meta']['iter'] == 3 + 2, 'two processes share an epoch of three batches'
    assert alone['meta']['iter'] == 6


def test_evaluation_agrees_with_training_and_with_mmdetections_tool(trained, config, tmp_path):
    work_dir, training = trained
    checkpoint = work_dir / 'epoch_2.pth'
    ours = run_warm(
        TEST, config, checkpoint, '--out', 'ours.pkl', '--show-dir', 'drawn',
        '--work-dir', tmp_path, cwd=tmp_path,
    )  # fmt: skip
    theirs = run(
        '-c', WITH_PLUGIN, MMDET_TOOLS / 'test.py', config, checkpoint, '--out', 'theirs.pkl',
        '--work-dir', tmp_path, cwd=tmp_path,
    )  # fmt: skip
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
        TEST, config, trained[0] / 'epoch_2.pth', '--tta', '--amp', '--out', 'views.pkl',
        '--cfg-options', 'model.test_cfg.max_per_img=5', cwd=tmp_path,
    )  # fmt: skip
    assert mean_ap(output)
    detections = pickle.loads((tmp_path / 'views.pkl').read_bytes())
    assert [len(one['pred_instances']['labels']) for one in detections] == [5, 5]
    assert not any(one['flip'] for one in detections), 'compared with mirrored ground truth'


def test_mmdetections_training_tool_runs_our_config(trained, config, tmp_path):
    run_warm(
        MMDET_TOOLS / 'train.py', config, '--work-dir', tmp_path,
        '--cfg-options', 'train_cfg.max_epochs=1', cwd=tmp_path,
    )  # fmt: skip
    theirs, ours = load(tmp_path / 'epoch_1.pth'), load(trained[0] / 'epoch_1.pth')
    assert_same(theirs['state_dict'], ours['state_dict'])


def test_tensorboard_reads_the_losses_that_the_log_has(trained, config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_warm(TRAIN, config, '--tensorboard', '--work-dir', tmp_path, cwd=tmp_path)
    (events,) = tmp_path.rglob('events.out.tfevents.*')
    accumulator = EventAccumulator(str(events.parent)).Reload()
    shown = {event.step: event.value for event in accumulator.Scalars('loss')}
    (scalars,) = tmp_path.rglob('scalars.json')
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    logged = {entry['step']: entry['loss'] for entry in logged if 'loss' in entry}
    assert len(shown) == 6
    assert shown == pytest.approx(logged)


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
    'beyond it': (TRAIN, ['CONFIG', '--cfg-options', 'load.9.type=X'], '--cfg-options'),
    'no base batch': (TRAIN, ['scaleless.py', '--auto-scale-lr'], 'base_batch_size'),
    'no pickle': (TEST, ['CONFIG', 'any.pth', '--out', 'a.json'], 'a.json'),
    'classes alone': (TRAIN, ['CONFIG', '--classes', 'a,b'], '--classes needs --data-root'),
    'no data': (TRAIN, ['CONFIG', '--cfg-options', *NOWHERE], 'nothing/ImageSets'),
    'no test data': (TEST, ['CONFIG', 'any.pth', '--cfg-options', *NOWHERE], 'nothing/ImageSets'),
    'how to get data': (
        TRAIN,
        ['CONFIG', '--cfg-options', *NOWHERE],
        'prepare_data.py shapes DATA',
    ),
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
