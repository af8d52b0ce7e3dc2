"""Thresholds by class: what is kept, and files that are refused in one line."""

import json

import numpy as np
import pytest
from mmengine.structures import InstanceData

from ssd_plugin.errors import InputError
from ssd_plugin.inference.stream import above_threshold
from ssd_plugin.inference.thresholds import read_thresholds

CLASSES = ('cat', 'dog')


def test_each_class_has_its_threshold(tmp_path):
    path = tmp_path / 'scores.json'
    path.write_text(json.dumps({'dog': 0.6, 'cat': 0.2}))
    scores = np.array([0.2, 0.5, 0.6, 0.1, 0.7], np.float32)
    labels = np.array([0, 1, 1, 0, 0])
    found = InstanceData(bboxes=np.zeros((5, 4)), scores=scores, labels=labels)
    kept = above_threshold(found, read_thresholds(path, CLASSES))
    assert [*zip(kept.labels.tolist(), kept.scores.round(3).tolist())] == [
        (0, pytest.approx(0.7)),
        (1, pytest.approx(0.6)),
        (0, pytest.approx(0.2)),
    ]
    assert len(above_threshold(found, 0.5)) == 3


@pytest.mark.parametrize(
    'content, said',
    [
        ('{"cat": 0.2}', 'no threshold for dog'),
        (
            '{"cat": 0.2, "dog": 0.2, "cow": 0.1}',
            "the detector has no class 'cow', but cat, dog",
        ),
        ('{"cat": 1.2, "dog": 0.2}', "the threshold of 'cat' is 1.2, not from 0 to 1"),
        ('{"cat": NaN, "dog": 0.2}', "the threshold of 'cat' is nan, not from 0 to 1"),
        ('{"cat": "0.2", "dog": 0.2}', "the threshold of 'cat' is '0.2', not from 0 to 1"),
        ('{"cat": true, "dog": 0.2}', "the threshold of 'cat' is True, not from 0 to 1"),
        ('[0.2, 0.3]', 'has no thresholds by class, as {"cat": 0.3} has'),
        ('{"cat": 0.2', 'is no JSON file: '),
        ('\udcff', 'is no JSON file: '),
    ],
)
def test_other_files_are_refused(content, said, tmp_path):
    path = tmp_path / 'scores.json'
    path.write_bytes(content.encode(errors='surrogateescape'))
    with pytest.raises(InputError) as caught:
        read_thresholds(path, CLASSES)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)
    assert '\n' not in str(caught.value)
