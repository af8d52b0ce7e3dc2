"""Priors, parameters and MACs of models: counted, printed, and written down in the docs."""

import re
from pathlib import Path

import get_flops
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from ssd_plugin.analysis.prior_grid import measure_complexity

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
TABLE_ROW = re.compile(r'^\| \[(\w+)\]\(\.\./configs/(\w+)\.py\) \|(.*)\|$', re.MULTILINE)


def naive_macs(model: nn.Module, image: torch.Tensor) -> int:
    """Layer by layer: each output number of a convolution takes in_channels / groups * k * k."""
    macs = []

    def count(conv, _, output):
        macs.append(output.numel() * conv.in_channels // conv.groups * conv.weight[0, 0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(image, mode='tensor')
    return sum(macs)


@pytest.mark.parametrize('name', ['demo_shapes', 'ssdlite320_mobilenetv2_coco'])
def test_the_count_is_that_of_a_real_forward_pass(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    complexity = measure_complexity(cfg)
    model = MODELS.build(cfg.model).eval()
    width, height = complexity.input_size
    assert complexity.num_macs == naive_macs(model, torch.zeros(1, 3, height, width))
    assert complexity.num_parameters == sum(p.numel() for p in model.parameters())
    cls_scores, _ = model(torch.zeros(1, 3, height, width), mode='tensor')
    assert complexity.num_priors == len(model.bbox_head.get_priors(cls_scores))


def test_ssd300_has_as_many_parameters_as_torchvision_says():
    # 35,641,826 with 91 scores a prior, by the metadata of torchvision's weights.
    cfg = Config.fromfile(ROOT / 'configs/ssd300_coco.py')
    cfg.model.bbox_head.num_classes = 90
    assert measure_complexity(cfg).num_parameters == 35641826


def test_the_tool_prints_a_row_for_each_config(monkeypatch, capsys):
    configs = [str(ROOT / f'configs/{name}.py') for name in ('demo_shapes', 'ssd300_voc')]

    def lines(*args):
        monkeypatch.setattr('sys.argv', ['get_flops.py', *args])
        get_flops.main()
        return capsys.readouterr().out.splitlines()

    assert lines(*configs, '--markdown') == [
        '| demo_shapes | 160 x 160 | 2136 | 0.91 M | 0.08 G |',
        '| ssd300_voc | 300 x 300 | 8732 | 26.29 M | 31.37 G |',
    ]
    row = ['demo_shapes', '160 x 160', '2136', '0.91 M', '0.08 G']
    assert [cell.strip() for cell in lines(*configs)[3].split('│')[1:-1]] == row
    with pytest.raises(SystemExit, match='^no config file nowhere.py$'):
        lines('nowhere.py')


@pytest.mark.parametrize('name', NAMES)
def test_the_docs_have_the_figures_of_every_config(name):
    rows = TABLE_ROW.findall((ROOT / 'docs/models.md').read_text())
    ((target, cells),) = [(target, cells) for label, target, cells in rows if label == name]
    assert target == name and len(rows) == len(NAMES)
    found = measure_complexity(Config.fromfile(ROOT / f'configs/{name}.py'))
    assert [cell.strip() for cell in cells.split('|')[:4]] == [
        '{} x {}'.format(*found.input_size),
        str(found.num_priors),
        f'{found.num_parameters / 1e6:.2f} M',
        f'{found.num_macs / 1e9:.2f} G',
    ]
