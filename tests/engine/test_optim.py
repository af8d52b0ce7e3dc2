"""Fewer groups of parameters, each parameter with the settings that MMEngine gives it."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from ssd_plugin.engine.optim import merge_groups

BIASES = dict(bias_lr_mult=2.0, bias_decay_mult=0.0)
NORMS = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
BY_NAME = dict(custom_keys={'head': dict(lr_mult=0.1), 'head.bias': dict(decay_mult=0.0)})


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def built(model, paramwise, **options):
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)
    return build_optim_wrapper(model, dict(optimizer=optimizer, paramwise_cfg=paramwise, **options))


def settings_of(wrapper, model):
    """Of each parameter that is optimised, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: {k: v for k, v in group.items() if k != 'params'}
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.mark.parametrize('paramwise, groups', [(BIASES, 3), (NORMS, 2), (BY_NAME, 3), (None, 1)])
def test_each_parameter_keeps_its_settings_and_groups_are_few(paramwise, groups):
    model = Model()
    expected = settings_of(built(model, paramwise), model)
    merged = built(model, paramwise, constructor='MergingOptimWrapperConstructor')
    assert settings_of(merged, model) == expected
    assert sum(len(group['params']) for group in merged.optimizer.param_groups) == len(expected)
    assert len(merged.optimizer.param_groups) == groups


def test_a_step_is_that_of_many_groups():
    def trained(**options):
        torch.manual_seed(0)
        model = Model()
        wrapper = built(model, BIASES, **options)
        for _ in range(3):
            wrapper.update_params(model.head(model.body(torch.ones(2, 3, 4, 4)).mean((2, 3))).sum())
        return list(model.parameters())

    merged = trained(constructor='MergingOptimWrapperConstructor')
    for ours, theirs in zip(merged, trained(), strict=True):
        assert torch.equal(ours, theirs)


def test_only_equal_settings_are_merged_and_order_is_kept():
    groups = [dict(params=[0], lr=1), dict(params=[1]), dict(params=[2], lr=1), dict(params=[3])]
    assert merge_groups(groups) == [dict(params=[0, 2], lr=1), dict(params=[1, 3])]
    assert groups[0]['params'] == [0], 'what came in stays as it was'
