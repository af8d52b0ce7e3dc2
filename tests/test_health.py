"""`python -m ssd_plugin`: what it says of a sound and of a broken installation."""

import re
from importlib.metadata import distributions

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ssd_plugin import __main__ as health


def run(capsys):
    with pytest.raises(SystemExit) as end:
        health.main()
    return end.value.code, capsys.readouterr().out


def test_a_sound_installation_is_told_with_its_versions(capsys):
    code, output = run(capsys)
    assert code == 0
    assert 'FAILED' not in output
    installed = {package.name: package.version for package in distributions()}
    for names in (['torch'], ['mmdet', 'onedl-mmdetection'], ['mmengine', 'onedl-mmengine']):
        name = next(filter(installed.get, names))
        assert re.search(rf'{name} +{re.escape(installed[name])}', output)
    assert 'SSDMultiBoxHead' in output
    assert ('no GPU' in output) is not torch.cuda.is_available()


def test_nms_that_keeps_the_wrong_boxes_is_a_failure(capsys, monkeypatch):
    everything = lambda boxes, scores, labels, config: (boxes, torch.arange(len(boxes)))  # noqa: E731
    monkeypatch.setattr('mmcv.ops.batched_nms', everything)
    code, output = run(capsys)
    assert code == 1 and 'FAILED' in output
    assert 'kept boxes [0, 1, 2, 3]' in output
    assert 'a detector runs on cpu' in output, 'the other checks go on'


def test_a_detector_that_gives_no_numbers_is_a_failure(capsys, monkeypatch):
    found = InstanceData(bboxes=torch.full((1, 4), torch.nan), scores=torch.ones(1))
    sample = DetDataSample(pred_instances=found)
    monkeypatch.setattr('mmdet.apis.inference_detector', lambda model, image: sample)
    code, output = run(capsys)
    assert code == 1
    assert 'A detector built from a config, one image through it.' in output
    assert 'detections are not finite' in output


def test_compiled_operations_are_recognised(monkeypatch):
    monkeypatch.setattr(health, 'is_installed', lambda name: True)
    assert 'every model of MMDetection' in health.mmcv_operations()
