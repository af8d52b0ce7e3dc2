"""Batches from a loader's workers: the samples that went in, sent together."""

import io
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from mmengine.structures import InstanceData
from torch.multiprocessing import reductions
from torch.utils.data import DataLoader

from ssd_plugin.datasets.collate import SampleList, detection_collate


def made_sample(count):
    """An image with ``count`` boxes, its path and its shape."""
    meta = dict(img_path=f'{count}.jpg', img_shape=(4, 6), flip=bool(count % 2))
    sample = DetDataSample(metainfo=meta)
    boxes = torch.rand(count, 4, generator=torch.Generator().manual_seed(count))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes), labels=torch.arange(count), scores=boxes[:, 0].bfloat16()
    )
    sample.ignored_instances = InstanceData(bboxes=boxes[1:], areas=np.arange(max(count - 1, 0)))
    return dict(inputs=torch.full((3, 4, 6), count, dtype=torch.uint8), data_samples=sample)


def collate(counts):
    return detection_collate([made_sample(count) for count in counts])


def assert_same(one, other):
    assert one.metainfo == other.metainfo
    for name in ('gt_instances', 'ignored_instances'):
        ours, theirs = one.get(name), other.get(name)
        # MMEngine lists the names of a set, whose order differs from process to process.
        assert sorted(ours.keys()) == sorted(theirs.keys())
        for key, expected in theirs.items():
            assert type(ours[key]) is type(expected)
            mine, yours = (getattr(part, 'tensor', part) for part in (ours[key], expected))
            assert mine.dtype == yours.dtype
            assert np.array_equal(np.asarray(mine.tolist()), np.asarray(yours.tolist()))


@pytest.mark.parametrize('workers', [0, 2])
def test_a_batch_is_that_of_mmengines_collation(workers):
    assert FUNCTIONS.get('detection_collate') is detection_collate, 'configs know it by name'
    batches = list(DataLoader(range(6), 3, num_workers=workers, collate_fn=collate))
    assert len(batches) == 2
    for number, batch in enumerate(batches):
        expected = default_collate([made_sample(3 * number + i) for i in range(3)])
        assert batch.keys() == expected.keys()
        assert torch.equal(batch['inputs'], expected['inputs'])
        for one, other in zip(batch['data_samples'], expected['data_samples'], strict=True):
            assert_same(one, other)


def test_annotations_use_no_shared_memory(monkeypatch):
    samples = [made_sample(i) for i in range(1, 4)]
    for sample in samples:
        del sample['data_samples'].gt_instances.scores
    shared = []

    def note(tensor):
        shared.append(tensor)
        return reductions.reduce_tensor(tensor)

    monkeypatch.setitem(ForkingPickler._extra_reducers, torch.Tensor, note)
    ForkingPickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(detection_collate(samples))
    assert [tuple(tensor.shape) for tensor in shared] == [(3, 3, 4, 6)]
    ForkingPickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(default_collate(samples))
    assert len(shared) == 2 + 3 * 3, 'MMEngine sends boxes, labels and ignored boxes of each'


def test_what_arrives_can_be_written_to_and_is_a_plain_list():
    sent = SampleList([made_sample(2)['data_samples']])
    arrived = pickle.loads(pickle.dumps(sent))
    assert type(arrived) is list
    before, after = (samples[0].gt_instances.bboxes.tensor for samples in (sent, arrived))
    assert torch.equal(after.mul_(2), 2 * before)
