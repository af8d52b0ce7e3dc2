"""What the plugin does so that MMDetection works on current PyTorch, and that it does no more."""

import functools
import importlib
import os
import pickle
import pkgutil
import re
import subprocess
import sys
import types
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, roi_align
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hub import get_config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.utils.dl_utils import mmcv_full_available
from torch.torch_version import TorchVersion
from torchvision import ops as torchvision_ops

from ssd_plugin import compat
from ssd_plugin.compat import torch_load as loading

ROOT = Path(__file__).resolve().parents[2]


# --- the stand-in for mmcv's compiled operations -------------------------------------------------


@pytest.fixture
def fake_mmcv(monkeypatch, tmp_path):
    """Nothing of mmcv is imported, and what will be is an empty package; returns its folder."""
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmcv']:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    return package


def test_compiled_mmcv_is_used_where_present(fake_mmcv):
    (fake_mmcv / '_ext.py').write_text("nms = 'compiled'")
    compat._install_stand_in_for_mmcv_ops()
    assert importlib.import_module('mmcv._ext').nms == 'compiled'


def test_stand_in_is_used_where_compiled_mmcv_is_absent(fake_mmcv):
    compat._install_stand_in_for_mmcv_ops()
    ext = importlib.import_module('mmcv._ext')
    assert isinstance(ext, compat._StandInOps)
    assert hasattr(ext, 'roi_align_forward')  # as mmcv's load_ext asks, when it is imported
    assert not hasattr(ext, '__file__')
    assert not mmcv_full_available()


def test_compiled_mmcv_that_cannot_be_loaded_is_not_hidden(fake_mmcv):
    (fake_mmcv / '_ext.py').write_text("raise ImportError('undefined symbol: _ZN3c10')")
    with pytest.warns(RuntimeWarning, match='undefined symbol: _ZN3c10.*mmcv-lite') as caught:
        compat._install_stand_in_for_mmcv_ops()
    assert len(caught) == 1 and '\n' not in str(caught[0].message)
    with pytest.raises(NotImplementedError, match='rebuild'):
        importlib.import_module('mmcv._ext').roi_align_forward()


def test_an_error_of_mmcv_itself_is_not_taken_for_a_missing_operation(fake_mmcv):
    (fake_mmcv / '__init__.py').write_text("raise ImportError('mmcv is broken')")
    (fake_mmcv / '_ext.py').touch()
    with pytest.raises(ImportError, match='mmcv is broken'):
        compat._install_stand_in_for_mmcv_ops()


@pytest.mark.parametrize('state', ['absent', 'a folder left by uninstalling'])
def test_without_mmcv_the_error_says_what_to_install(fake_mmcv, monkeypatch, state):
    leftover = types.ModuleType('mmcv')
    leftover.__spec__ = ModuleSpec('mmcv', loader=None, is_package=True)
    monkeypatch.setitem(sys.modules, 'mmcv', None if state == 'absent' else leftover)
    with pytest.raises(ImportError, match='pip install "mmcv-lite') as caught:
        compat._install_stand_in_for_mmcv_ops()
    assert '\n' not in str(caught.value)


@pytest.mark.skipif(
    not isinstance(sys.modules['mmcv._ext'], compat._StandInOps), reason='mmcv is the compiled one'
)
def test_missing_operation_is_named_when_called():
    message = 'roi_align_forward.*pip install --no-build-isolation "mmcv>='
    with pytest.raises(NotImplementedError, match=message) as caught:
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)
    assert '\n' not in str(caught.value)


def random_boxes(count, seed=0):
    """Boxes (count, 4) that overlap a lot, with corners on whole pixels, and scores (count,)."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (count, 2), generator=generator)
    size = torch.randint(1, 30, (count, 2), generator=generator)
    return torch.cat([corner, corner + size], 1).float(), torch.rand(count, generator=generator)


def naive_nms(boxes, scores, iou_threshold, offset):
    """Take the best box left, drop those that overlap it too much, repeat."""

    def area(x1, y1, x2, y2):
        return max(x2 - x1 + offset, 0) * max(y2 - y1 + offset, 0)

    def iou(a, b):
        inter = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        return inter / (area(*a) + area(*b) - inter)

    boxes, left, kept = boxes.tolist(), scores.argsort(descending=True).tolist(), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [other for other in left if iou(boxes[best], boxes[other]) <= iou_threshold]
    return kept


@pytest.mark.parametrize('count', [0, 1, 300])
def test_nms_is_torchvisions(count):
    boxes, scores = random_boxes(count)
    kept = torchvision_ops.nms(boxes, scores, 0.45)
    assert torch.equal(compat._nms(boxes, scores, iou_threshold=0.45, offset=0), kept)
    detections, indices = nms(boxes, scores, 0.45)
    assert torch.equal(indices, kept)
    assert torch.equal(detections, torch.cat([boxes, scores[:, None]], 1)[kept])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('iou_threshold', [0.2001, 0.4501, 0.7001])  # no two areas' ratio
def test_nms_is_the_naive_loop(offset, iou_threshold):
    boxes, scores = random_boxes(200)
    _, indices = nms(boxes, scores, iou_threshold, offset=offset)
    assert indices.tolist() == naive_nms(boxes, scores, iou_threshold, offset)


def test_offset_changes_what_nms_keeps():
    boxes, scores = random_boxes(200)
    assert naive_nms(boxes, scores, 0.45, 0) != naive_nms(boxes, scores, 0.45, 1)


def test_nms_per_class_leaves_other_classes_alone():
    boxes, scores = random_boxes(300)
    labels = torch.arange(300) % 3
    _, indices = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.45))
    assert torch.equal(indices, torchvision_ops.batched_nms(boxes, scores, labels, 0.45))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_takes_half_precision_on_the_cpu(dtype):
    boxes, scores = random_boxes(50)  # whole numbers below 256: exact in both types
    scores = scores.to(dtype).float()
    kept = torchvision_ops.nms(boxes, scores, 0.45)
    half = compat._nms(boxes.to(dtype), scores.to(dtype), iou_threshold=0.45, offset=0)
    mixed = compat._nms(boxes, scores.to(dtype), iou_threshold=0.45, offset=0)
    assert torch.equal(half, kept) and torch.equal(mixed, kept)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_nms_on_the_gpu_is_that_on_the_cpu():
    boxes, scores = random_boxes(300)
    kept = compat._nms(boxes.cuda(), scores.cuda(), iou_threshold=0.45, offset=1)
    assert torch.equal(kept.cpu(), compat._nms(boxes, scores, iou_threshold=0.45, offset=1))


def test_importing_mmdet_first_does_no_harm():
    """Without compiled mmcv it fails; importing the plugin then repairs it in the same process."""
    script = """
try:
    import mmdet.apis
except ModuleNotFoundError as error:
    assert 'mmcv._ext' in str(error)
import ssd_plugin
from mmdet.apis import DetInferencer
"""
    run = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# --- checkpoints ---------------------------------------------------------------------------------


class Line(BaseModel):
    """The smallest model that MMEngine trains."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, *inputs, mode='tensor'):
        output = self.linear(torch.stack(inputs))
        return dict(loss=output.square().mean()) if mode == 'loss' else [output]


class Points(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)])

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class NumPyMetric(BaseMetric):
    """Answers what metrics compute with NumPy; `save_best` writes it into the checkpoint."""

    default_prefix = 'numpy'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        kinds = (np.float16, np.float32, np.float64, np.int64, np.bool_, np.atleast_1d)
        return {kind.__name__: kind(1) for kind in kinds}


def make_runner(work_dir, epochs, **kwargs):
    loader = functools.partial(dict, batch_size=2, num_workers=0, dataset=Points())
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader(sampler=DefaultSampler(Points(), shuffle=False)),
        val_dataloader=loader(sampler=DefaultSampler(Points(), shuffle=False)),
        val_evaluator=Evaluator(NumPyMetric()),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='MultiStepLR', milestones=[1]),
            dict(type='OneCycleLR', eta_max=0.1, total_steps=10),
        ],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', save_best='numpy/float64', rule='greater')
        ),
        experiment_name=f'{work_dir.name}-{epochs}',
        **kwargs,
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder in which MMEngine left the checkpoints of two epochs and of the best one."""
    work_dir = tmp_path_factory.mktemp('trained')
    make_runner(work_dir, epochs=2).train()
    return work_dir


@pytest.mark.parametrize('name', ['epoch_2.pth', 'best_numpy_float64_epoch_1.pth'])
def test_mmengine_checkpoint_loads_with_weights_only(trained, name):
    file = trained / name
    if torch.__version__ >= (2, 6):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(file) == []
    checkpoint = torch.load(file)  # the default, weights_only, is the one under test
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history.mean(2) == pytest.approx(np.mean(history.data[0][-2:]))
    assert checkpoint['message_hub']['runtime_info']['best_score'] == 1


def test_training_resumes_from_mmengine_checkpoint(trained):
    runner = make_runner(trained, epochs=3, resume=True)
    runner.train()
    assert runner.epoch == 3
    history, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(history) == 3 * 2  # of all epochs, not only of those after resuming


@pytest.mark.parametrize('module', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_checkpoint_of_either_numpy_loads(trained, tmp_path, module):
    either, asked = rb'cnumpy\._?core\.multiarray\n', f'c{module}\n'.encode()
    old, new = (
        zipfile.ZipFile(trained / 'epoch_2.pth'),
        zipfile.ZipFile(tmp_path / 'other.pth', 'w'),
    )
    with old, new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith('data.pkl'):
                data, count = re.subn(either, asked, data)
                assert count >= 2
            new.writestr(name, data)
    checkpoint = torch.load(tmp_path / 'other.pth')
    assert isinstance(checkpoint['message_hub']['log_scalars']['train/loss'], HistoryBuffer)


class Call:
    """Unpickles as the result of calling `function`, which may be a Call itself."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self):  # pickle asks that what it calls be callable
        raise NotImplementedError


def remover(kind, file):
    """An object that removes `file` when something that trusts it unpickles it."""
    code = f'__import__("os").remove({str(file)!r})'
    if kind == 'os':
        return Call(os.remove, str(file))
    if kind == 'exec':
        return Call(exec, code)
    module_globals = Call(getattr, Call(getattr, HistoryBuffer, '__init__'), '__globals__')
    builtin = Call(Call(getattr, module_globals, 'get'), '__builtins__')
    return Call(Call(Call(getattr, builtin, 'get'), 'eval'), code)


@pytest.mark.parametrize('kind', ['os', 'exec', 'getattr'])
def test_malicious_checkpoint_is_refused_before_its_payload_runs(tmp_path, kind):
    victim, checkpoint = tmp_path / 'victim', tmp_path / 'checkpoint.pth'
    victim.touch()
    torch.save(dict(state_dict=remover(kind, victim)), checkpoint)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint)
    assert victim.exists()
    torch.load(checkpoint, weights_only=False)  # the attack is real
    assert not victim.exists()


@pytest.mark.parametrize('owner', [HistoryBuffer, HistoryBuffer.mean, [], 'text'])
@pytest.mark.parametrize('name', ['__init__', '__globals__', 'statistics', '__class__'])
def test_checkpoints_reach_no_other_attributes(owner, name):
    with pytest.raises(pickle.UnpicklingError, match=f"attribute '{name}'"):
        loading._checkpoint_attribute(owner, name)


@pytest.mark.skipif(torch.__version__ < (2, 6), reason='PyTorch has no list of what is allowed')
def test_nothing_that_reaches_attributes_or_code_is_allowed():
    allowed = torch.serialization.get_safe_globals()
    functions = {item[0] if isinstance(item, tuple) else item for item in allowed}
    assert functions.isdisjoint({getattr, setattr, eval, exec, compile, __import__, open})


def test_older_pytorch_is_left_alone(monkeypatch):
    def refuse(items):
        raise AssertionError

    monkeypatch.setattr(torch.serialization, 'add_safe_globals', refuse, raising=False)
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.5.1'))
    loading.allow_what_mmengine_checkpoints_hold()
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.6.0'))
    with pytest.raises(AssertionError):
        loading.allow_what_mmengine_checkpoints_hold()


# --- the rest ------------------------------------------------------------------------------------


def test_applying_again_does_nothing():
    before = sys.modules['mmcv._ext'], Config._get_cfg_path, pkgutil.find_loader
    compat.apply()
    assert before == (sys.modules['mmcv._ext'], Config._get_cfg_path, pkgutil.find_loader)


def test_find_loader_is_given_back_where_python_has_none(monkeypatch):
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compat._StandInOps('install it'))
    compat._restore_find_loader()
    assert not mmcv_full_available()
    assert pkgutil.find_loader('json') is not None
    assert pkgutil.find_loader('no_such_module') is None


def test_opencv_without_its_libraries_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match='pip install opencv-python-headless') as caught:
        compat._explain_opencv_without_display()
    assert '\n' not in str(caught.value)


def test_our_configs_have_names():
    file = Path(get_config('ssd_plugin::ssd300_voc.py').filename)
    assert file.samefile(ROOT / 'configs' / 'ssd300_voc.py')


def test_config_inherits_from_ours_by_name(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'ssd_plugin::ssd300_voc.py'\nmodel = dict(a=1)")
    model = Config.fromfile(tmp_path / 'mine.py').model
    assert model.bbox_head.type == 'SSDMultiBoxHead'
    assert model._scope_ == 'mmdet'  # the registry that has our components
    assert model.a == 1


def test_unknown_config_of_ours_is_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="'ssd3.py'.*ssd300_voc.py"):
        get_config('ssd_plugin::ssd3.py')


def test_names_of_other_packages_configs_are_left_to_mmengine(tmp_path):
    assert get_config('mmdet::ssd/ssd300_coco.py').model.bbox_head.type == 'SSDHead'
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdet::ssd/ssd300_coco.py'")
    assert Config.fromfile(tmp_path / 'mine.py').model.bbox_head.type == 'SSDHead'
