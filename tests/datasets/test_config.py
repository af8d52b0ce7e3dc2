"""Data sets inside wrappers are found, in configs and built."""

from types import SimpleNamespace

import pytest

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.faults import known_faults

A, B = dict(type='A'), dict(type='B')


@pytest.mark.parametrize('built', [False, True])
@pytest.mark.parametrize('wrapper, expected', [
    (A, [A]),
    (dict(dataset=A, times=3), [A]),
    (dict(datasets=[A, B]), [A, B]),
    (dict(dataset=dict(datasets=[A, dict(dataset=B)])), [A, B]),
    (dict(dataset=[A, B]), [A, B]),  # which MMEngine concatenates
])  # fmt: skip
def test_wrappers_of_any_depth_are_opened(wrapper, expected, built):
    def build(value):
        if isinstance(value, list):
            return [build(item) for item in value]
        if not isinstance(value, dict):
            return value
        return SimpleNamespace(**{key: build(item) for key, item in value.items()})

    if built:
        wrapper, expected = build(wrapper), build(expected)
    assert leaf_datasets(wrapper) == expected


def test_the_faults_of_all_data_sets_in_wrappers_are_known():
    parts = [SimpleNamespace(faults=['a', 'b']), SimpleNamespace(), SimpleNamespace(faults=['c'])]
    assert known_faults(SimpleNamespace(datasets=parts)) == ['a', 'b', 'c']
