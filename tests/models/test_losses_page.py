"""What docs/losses.md says: each row of its tables is a naive loop, and its configs build."""

import math
import re
import textwrap

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from tests.support import naive_losses as naive
from tests.support.commands import ROOT
from tests.support.helpers import INF, PRIORS, mined, naive_match, random_batch, tiny_head

DOCS = (ROOT / 'docs/losses.md').read_text()


def table(heading):
    """The rows of the table under a heading: cells, the first of them as the config it is."""
    rows = [
        [cell.strip() for cell in line.strip('|').split(' | ')]
        for line in DOCS.split(f'## {heading}\n')[1].split('\n## ')[0].splitlines()
        if line.startswith('| `')
    ]
    return {row[0].strip('`'): [eval(row[0].strip('`')), *row[1:]] for row in rows}


CLASSIFICATION, REGRESSION = table('Classification'), table('Regression')
NAIVE_CLASSIFICATION = {
    "dict(type='CrossEntropyLoss')": naive.cross_entropy,
    "dict(type='CrossEntropyLoss', class_weight=[2, 1, 3, 0.5])": naive.weighted_cross_entropy,
    "dict(type='torch.nn.CrossEntropyLoss', label_smoothing=0.1)": naive.smooth_cross_entropy,
    "dict(type='CrossEntropyLoss', use_sigmoid=True)": naive.sigmoid_cross_entropy,
    "dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[2, 1, 3])": (
        naive.weighted_sigmoid_cross_entropy
    ),
    "dict(type='FocalLoss')": naive.focal_loss,
    "dict(type='QualityFocalLoss')": naive.quality_focal_loss,
    "dict(type='VarifocalLoss')": naive.varifocal_loss,
    "dict(type='GHMC')": None,  # no loss of one prior: it weights each by all the others
}
BALANCED = naive.mmdetection_loss('BalancedL1Loss')
BOXES_ONLY = naive.IOU_FORMULAS | {
    name: naive.mmdetection_loss(name) for name in ('EIoULoss', 'SIoULoss', 'BoundedIoULoss')
}
SMOOTH_L1 = naive.PAPER_REGRESSION, naive.pixel_loss(naive.smooth_l1)
BALANCED_L1 = naive.delta_loss(lambda d: BALANCED([d], [0.0])), naive.box_loss(BALANCED)
NAIVE_REGRESSION = {  # of deltas, and of boxes
    "dict(type='SmoothL1Loss', beta=1.0)": SMOOTH_L1,
    "dict(type='L1Loss')": (naive.delta_loss(abs), naive.pixel_loss(abs)),
    "dict(type='BalancedL1Loss')": BALANCED_L1,
} | {f"dict(type='{name}')": (None, naive.box_loss(loss)) for name, loss in BOXES_ONLY.items()}


def test_the_tables_rows_are_those_tested_here():
    assert list(CLASSIFICATION) == list(NAIVE_CLASSIFICATION)
    assert list(REGRESSION) == list(NAIVE_REGRESSION)


@pytest.mark.parametrize('min_negatives', [None, 0, 50], ids=['alone', 'mined', 'mined, 50'])
@pytest.mark.parametrize('row', CLASSIFICATION)
def test_a_classification_loss_of_the_table(row, min_negatives):
    """The second image has no boxes: it teaches by its hardest negatives, or not at all."""
    config, num_scores, alone, if_mined, _ = CLASSIFICATION[row]
    is_mined = min_negatives is not None
    loss_cls = dict(mined(**config), min_negatives=min_negatives) if is_mined else config
    head = tiny_head(loss_cls=loss_cls)
    assert head.cls_out_channels == {'C': 3, 'C + 1': 4}[num_scores]
    batch = random_batch((3, 0), head.cls_out_channels)
    if (if_mined if is_mined else alone) == 'no':
        with pytest.raises(TypeError):
            batch.head_loss(head)
        return
    if NAIVE_CLASSIFICATION[row]:
        expected = naive.naive_head_loss(
            batch,
            NAIVE_CLASSIFICATION[row],
            sigmoid=num_scores == 'C',
            min_negatives=min_negatives if is_mined else INF,
        )
    else:
        expected = naive.naive_head_loss(batch, naive.sigmoid_cross_entropy, sigmoid=True)
        labels = [
            [*own, 3][g - 1]  # g is 0 where unmatched
            for boxes, own in zip(batch.boxes, batch.labels)
            for g in naive_match(PRIORS, boxes)[0]
        ]
        rows, weights = batch.scores.flatten(0, 1), torch.ones(len(labels))
        expected['loss_cls'] = MODELS.build(config)(rows, torch.tensor(labels), weights)
    naive.assert_head_loss(batch.head_loss(head), expected, batch)


@pytest.mark.parametrize('decoded', [False, True], ids=['deltas', 'boxes'])
@pytest.mark.parametrize('row', REGRESSION)
def test_a_regression_loss_of_the_table(row, decoded):
    config, deltas, boxes, _ = REGRESSION[row]
    options = dict(loss_bbox=config, reg_decoded_bbox=decoded)
    if (boxes if decoded else deltas) == 'no':
        with pytest.raises(ValueError, match='compares boxes and not deltas'):
            tiny_head(**options)
        return
    batch = random_batch((3, 2))
    expected = naive.naive_head_loss(batch, regression=NAIVE_REGRESSION[row][decoded])
    naive.assert_head_loss(batch.head_loss(tiny_head(**options)), expected, batch)


BLOCKS = [
    textwrap.dedent(code) for code in re.findall(r'^ *```python\n(.*?)```', DOCS, re.S | re.M)
]


@pytest.mark.parametrize('code', BLOCKS, ids=range(len(BLOCKS)))
def test_a_config_of_the_page_builds(code, tmp_path):
    """`loss_cls` is put into a head of ours, `model` over the config of SSD300 or of RetinaNet."""
    if code.startswith('loss_cls'):
        config = {}
        exec(code, config)
        head = tiny_head(loss_cls=config['loss_cls'])
        losses = random_batch((3, 2), head.cls_out_channels).head_loss(head)
        assert all(0 < loss < math.inf for loss in losses.values())
        return
    base = str(ROOT / 'configs/ssd300_voc.py')
    if 'assigner' in code:
        base = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n{code}')
    model = Config.fromfile(tmp_path / 'config.py').model
    head = MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=model.test_cfg))
    for part in ('loss_cls', 'loss_bbox'):
        assert type(getattr(head, part)).__name__ == model.bbox_head[part].type
