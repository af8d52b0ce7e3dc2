"""The data preprocessor: MMDetection's images, and annotations that stay where they are."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

NORMS = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 1.0, 30.0])
SETTINGS = {
    'BGR': NORMS,
    'RGB': dict(NORMS, bgr_to_rgb=True),
    'the other way round': dict(NORMS, rgb_to_bgr=True),
    'padded': dict(NORMS, bgr_to_rgb=True, pad_size_divisor=8, pad_value=7),
    'not normalised': dict(bgr_to_rgb=True),
}


def batch(stacked):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, 20, 30), dtype=torch.uint8, generator=generator)
    boxes = HorizontalBoxes(torch.tensor([[1.0, 2, 9, 8]]))
    samples = []
    for _ in images:
        sample = DetDataSample(metainfo=dict(img_shape=(20, 30)))
        sample.gt_instances = InstanceData(bboxes=boxes.clone(), labels=torch.tensor([1]))
        samples.append(sample)
    return dict(inputs=images if stacked else list(images), data_samples=samples)


def build(settings, kind='SSDDataPreprocessor'):
    return MODELS.build(dict(type=kind, **settings))


@pytest.mark.parametrize('stacked', [True, False])
@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_it_prepares_what_mmdetections_does(settings, stacked):
    data = batch(stacked)
    ours = build(settings)(data, training=True)
    theirs = build(settings, 'DetDataPreprocessor')(batch(stacked), training=True)
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert torch.equal(torch.stack(list(data['inputs'])), torch.stack(list(batch(False)['inputs'])))
    for one, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
        assert one.metainfo == other.metainfo
        assert torch.equal(one.gt_instances.bboxes, other.gt_instances.bboxes)


def test_images_go_to_the_device_and_annotations_do_not():
    data = batch(stacked=True)
    result = build(NORMS).to('meta')(data, training=True)
    assert result['inputs'].device.type == 'meta'
    for given, sample in zip(data['data_samples'], result['data_samples'], strict=True):
        assert sample is given
        assert sample.gt_instances.labels.device.type == 'cpu'


def test_images_without_annotations_are_prepared():
    result = build(NORMS)(dict(inputs=batch(True)['inputs']))
    assert result['inputs'].shape == (2, 3, 20, 30)
    assert result['data_samples'] is None


def test_both_orders_at_once_are_refused():
    with pytest.raises(ValueError, match='bgr_to_rgb or rgb_to_bgr'):
        build(dict(bgr_to_rgb=True, rgb_to_bgr=True))
