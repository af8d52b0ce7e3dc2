"""The stand-in for mmcv's compiled operations: NMS is right, and nothing else is pretended."""

import importlib
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch
from mmcv.ops import batched_nms, nms, roi_align
from mmengine.utils.dl_utils import mmcv_full_available
from torchvision import ops

from ssd_plugin.compat.mmcv_ops import StandInOps, install_mmcv_ops
from ssd_plugin.errors import MissingOperationError
from tests.support.commands import ROOT
from tests.support.helpers import naive_nms


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
    install_mmcv_ops()
    assert importlib.import_module('mmcv._ext').nms == 'compiled'


def test_the_stand_in_is_used_where_compiled_mmcv_is_absent(fake_mmcv):
    install_mmcv_ops()
    ext = importlib.import_module('mmcv._ext')
    assert hasattr(ext, 'roi_align_forward')  # mmcv's load_ext asks for it when it is imported
    assert not hasattr(ext, '__file__')
    assert not mmcv_full_available()


def test_compiled_mmcv_that_cannot_be_loaded_is_not_hidden(fake_mmcv):
    (fake_mmcv / '_ext.py').write_text("raise ImportError('undefined symbol: _ZN3c10')")
    with pytest.warns(RuntimeWarning, match='undefined symbol: _ZN3c10.*mmcv-lite') as caught:
        install_mmcv_ops()
    assert len(caught) == 1 and '\n' not in str(caught[0].message)
    with pytest.raises(MissingOperationError, match='rebuild'):
        importlib.import_module('mmcv._ext').roi_align_forward()


def test_an_error_of_mmcv_itself_is_not_taken_for_a_missing_operation(fake_mmcv):
    (fake_mmcv / '__init__.py').write_text("raise ImportError('mmcv is broken')")
    (fake_mmcv / '_ext.py').touch()
    with pytest.raises(ImportError, match='mmcv is broken'):
        install_mmcv_ops()


@pytest.mark.parametrize('state', ['absent', 'a folder left by uninstalling'])
def test_without_mmcv_the_error_says_what_to_install(fake_mmcv, monkeypatch, state):
    leftover = types.ModuleType('mmcv')
    leftover.__spec__ = ModuleSpec('mmcv', loader=None, is_package=True)
    monkeypatch.setitem(sys.modules, 'mmcv', None if state == 'absent' else leftover)
    with pytest.raises(ImportError, match='pip install "mmcv-lite') as caught:
        install_mmcv_ops()
    assert '\n' not in str(caught.value)


@pytest.mark.skipif(
    not isinstance(sys.modules['mmcv._ext'], StandInOps), reason='mmcv is the compiled one'
)
def test_a_missing_operation_is_named_when_it_is_called():
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


@pytest.mark.parametrize('count', [0, 1, 300])
def test_nms_is_torchvisions(count):
    boxes, scores = random_boxes(count)
    kept = ops.nms(boxes, scores, 0.45)
    detections, indices = nms(boxes, scores, 0.45)
    assert torch.equal(indices, kept)
    assert torch.equal(detections, torch.cat([boxes, scores[:, None]], 1)[kept])


@pytest.mark.parametrize('iou_threshold', [0.2001, 0.4501, 0.7001])  # no ratio of two areas
def test_nms_is_the_naive_loop_with_either_offset(iou_threshold):
    boxes, scores = random_boxes(200)
    kept = [nms(boxes, scores, iou_threshold, offset=offset)[1].tolist() for offset in (0, 1)]
    wider = boxes + torch.tensor([0, 0, 1, 1])  # w = x2 - x1 + 1
    naive = [naive_nms(b.tolist(), scores.tolist(), iou_threshold) for b in (boxes, wider)]
    assert kept == naive
    assert kept[0] != kept[1]


def test_nms_per_class_leaves_other_classes_alone():
    boxes, scores = random_boxes(300)
    labels = torch.arange(300) % 3
    _, indices = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.45))
    assert torch.equal(indices, ops.batched_nms(boxes, scores, labels, 0.45))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_takes_half_precision_on_the_cpu(dtype):
    boxes, scores = random_boxes(50)  # whole numbers below 256: exact in both types
    scores = scores.to(dtype).float()
    kept = ops.nms(boxes, scores, 0.45)
    stand_in = StandInOps('').nms
    assert torch.equal(stand_in(boxes.to(dtype), scores.to(dtype), iou_threshold=0.45), kept)
    assert torch.equal(stand_in(boxes, scores.to(dtype), iou_threshold=0.45), kept)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_nms_on_the_gpu_is_that_on_the_cpu():
    boxes, scores = random_boxes(300)
    kept = nms(boxes.cuda(), scores.cuda(), 0.45, offset=1)[1]
    assert torch.equal(kept.cpu(), nms(boxes, scores, 0.45, offset=1)[1])


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
