"""The losses: against naive loops over images, against torchvision's SSD, and in other heads."""

import math
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import Config
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD

from ssd_plugin.models.losses import HardNegativeMiningLoss
from tests.support.helpers import (
    PAPER_REGRESSION,
    TINY,
    box_loss,
    ciou_loss,
    clear_cut_boxes,
    cross_entropy,
    diou_loss,
    focal_loss,
    giou_loss,
    image_metas,
    instances,
    iou_loss,
    naive_head_loss,
    naive_match,
    naive_mining_loss,
    naive_priors,
    offset_loss,
    pixel_loss,
    quality_focal_loss,
    sigmoid_cross_entropy,
    smooth_cross_entropy,
    smooth_l1,
    tiny_features,
    tiny_head,
    to_levels,
    varifocal_loss,
    weighted,
)

SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
FOCAL = dict(type='FocalLoss')
examples = settings(deadline=None, max_examples=50)


def batch(seed, shape, classes=3, positives=0.15, sigmoid=False, scale=2.0):
    """Random scores (..., K) in float64 and labels, of which about `positives` are objects."""
    generator = torch.Generator().manual_seed(seed)
    channels = classes if sigmoid else classes + 1
    scores = torch.randn(*shape, channels, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) >= positives] = classes
    return scores.requires_grad_(), labels


def background_scores(hardness):
    """Two-score priors (one class and background) whose loss against background grows."""
    hardness = torch.tensor(hardness, dtype=torch.float64)
    return torch.stack([hardness, torch.zeros_like(hardness)], -1).requires_grad_()


def mined(scores, labels, **options):
    """Which priors the loss looks at: those whose scores get a gradient."""
    scores.grad = None
    HardNegativeMiningLoss(**options)(scores, labels).backward()
    return (scores.grad != 0).any(-1).tolist()


def assert_same_loss_and_gradient(ours, theirs, inputs, **tolerance):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), **tolerance)
    gradient = torch.autograd.grad(ours, inputs, retain_graph=True)
    expected = torch.autograd.grad(theirs, inputs, retain_graph=True)
    torch.testing.assert_close(gradient, expected, **tolerance)


# --------------------------------------------------------------------------- the rule, by hand


def test_mining_takes_three_negatives_per_positive_of_each_image():
    one, two = [0.0, 5, 1, 4, 2, 3, 0.5, 0.1, 0.2], [0.0, 0.0, 8, 9, 1, 7, 6, 5, 4]
    scores = background_scores([one, two])
    labels = torch.ones(2, 9, dtype=torch.int64)
    labels[0, 0] = labels[1, 0] = labels[1, 1] = 0
    assert mined(scores, labels) == [
        [True, True, False, True, False, True, False, False, False],
        [True, True, True, True, False, True, True, True, True],
    ]


def test_no_image_lends_its_negatives_to_another():
    # The second image is empty, and its negatives are by far the hardest: none is taken.
    scores = background_scores([[0.0, 1, 2, 3, 4, 5], [90.0, 91, 92, 93, 94, 95]])
    labels = torch.ones(2, 6, dtype=torch.int64)
    labels[0, 0] = 0
    assert mined(scores, labels) == [[True, False, False, True, True, True], [False] * 6]


def test_there_are_never_more_negatives_than_priors_without_an_object():
    scores = background_scores([[1.0, 1, 1, 5, 6], [1.0, 1, 1, 1, 5]])
    labels = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    assert mined(scores, labels) == [[True] * 5] * 2
    # All of them, not all but one: "P - 1, which looks strange" would drop the easiest here.
    loss = HardNegativeMiningLoss()(scores, labels)
    expected, num_pos = naive_mining_loss(scores, labels, background=1)
    torch.testing.assert_close(loss, expected / num_pos)


def test_equal_losses_are_no_excuse_for_more_or_fewer_negatives():
    scores = torch.zeros(2, 20, 4, dtype=torch.float64)
    labels = torch.full((2, 20), 3)
    labels[0, 4] = labels[1, 5] = labels[1, 6] = 0
    losses = HardNegativeMiningLoss()(scores, labels, reduction_override='none')
    assert (losses > 0).sum(1).tolist() == [4, 8]
    torch.testing.assert_close(losses[losses > 0], torch.full((12,), math.log(4)).double())


def test_a_batch_without_objects_costs_nothing():
    scores, labels = batch(0, (2, 12), positives=0)
    loss = HardNegativeMiningLoss()(scores, labels)
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()  # and the gradient is there, and finite


def test_a_batch_of_nothing_but_objects_has_no_negatives():
    scores, labels = batch(0, (2, 12), positives=1.1)
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
    assert_same_loss_and_gradient(HardNegativeMiningLoss()(scores, labels), expected, [scores])


def test_certain_scores_give_no_nan():
    scores, labels = batch(0, (1, 12), positives=0)
    labels[0, 0] = 1
    with torch.no_grad():
        scores[0, 1:, :3] = -math.inf  # background beyond all doubt: a loss of 0
    loss = HardNegativeMiningLoss()(scores, labels)
    torch.testing.assert_close(loss, cross_entropy(scores[0, 0], 1))
    loss.backward()
    assert scores.grad.isfinite().all()


# --------------------------------------------------------------------------------- the naive loop


@examples
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 4),
    priors=st.integers(1, 30),
    positives=st.sampled_from([0, 0.05, 0.15, 0.4, 1.1]),
    ratio=st.integers(0, 5),
    min_negatives=st.sampled_from([0, 0, 2, 7]),
)
@example(seed=1, images=2, priors=30, positives=0.15, ratio=3, min_negatives=0)
@example(seed=1, images=3, priors=9, positives=0, ratio=3, min_negatives=2)
def test_the_loss_and_its_gradient_are_the_naive_loop_s(
    seed, images, priors, positives, ratio, min_negatives
):
    scores, labels = batch(seed, (images, priors), positives=positives)
    loss = HardNegativeMiningLoss(neg_pos_ratio=ratio, min_negatives=min_negatives)
    expected, num_pos = naive_mining_loss(
        scores, labels, background=3, ratio=ratio, min_negatives=min_negatives
    )
    assert_same_loss_and_gradient(loss(scores, labels), expected / max(num_pos, 1), [scores])


@examples
@given(seed=st.integers(0, 10**6), used=st.sampled_from([0, 0.3, 0.7]))
def test_priors_of_weight_zero_are_neither_positive_nor_mined(seed, used):
    scores, labels = batch(seed, (3, 20), positives=0.3)
    weights = (torch.rand(3, 20, generator=torch.Generator().manual_seed(seed)) < used).double()
    expected, num_pos = naive_mining_loss(scores, labels, background=3, weights=weights)
    loss = HardNegativeMiningLoss()(scores, labels, weights)
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


def test_weights_of_positives_scale_their_loss():
    scores, labels = batch(5, (2, 20), positives=0.3)
    weights = torch.ones(2, 20).double()
    weights[labels < 3] = 0.25
    expected, num_pos = naive_mining_loss(scores, labels, background=3, weights=weights)
    loss = HardNegativeMiningLoss()(scores, labels, weights, avg_factor=num_pos)
    assert_same_loss_and_gradient(loss, expected / num_pos, [scores])


@examples
@given(seed=st.integers(0, 10**6), positives=st.sampled_from([0, 0.15, 1.1]))
def test_scores_of_no_image_are_mined_as_one_set(seed, positives):
    scores, labels = batch(seed, (25,), positives=positives)
    expected, num_pos = naive_mining_loss(scores[None], labels[None], background=3)
    loss = HardNegativeMiningLoss()(scores, labels)
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


@pytest.mark.parametrize(
    ('inner', 'naive'), [(SIGMOID, sigmoid_cross_entropy), (FOCAL, focal_loss)]
)
@pytest.mark.parametrize('positives', [0, 0.2, 1.1])
def test_losses_of_one_score_per_class_are_mined_by_their_sum(inner, naive, positives):
    scores, labels = batch(11, (2, 15), positives=positives, sigmoid=True)
    expected, num_pos = naive_mining_loss(scores, labels, background=3, loss=naive)
    loss = HardNegativeMiningLoss(loss=inner)(scores, labels)
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


@examples
@given(
    seed=st.integers(0, 10**6),
    inner=st.sampled_from(
        [('QualityFocalLoss', quality_focal_loss), ('VarifocalLoss', varifocal_loss)]
    ),
    shape=st.sampled_from([(3, 12), (1, 25)]),
    positives=st.sampled_from([0, 0.15, 1.1]),
)
def test_quality_is_the_target_of_positives(seed, inner, shape, positives):
    """Given as MMDetection's GFLHead gives it, beside the label; a negative's is not looked at."""
    name, naive = inner
    scores, labels = batch(seed, shape, positives=positives, sigmoid=True)
    quality = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()
    quality[labels == 3] = math.nan
    expected, num_pos = naive_mining_loss(
        scores, labels, background=3, loss=naive, quality=quality.tolist()
    )
    loss = HardNegativeMiningLoss(loss=dict(type=name))(scores, (labels, quality))
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


def test_without_quality_every_object_s_is_one():
    scores, labels = batch(1, (2, 12), sigmoid=True)
    loss = HardNegativeMiningLoss(loss=dict(type='QualityFocalLoss'))
    torch.testing.assert_close(
        loss(scores, labels), loss(scores, (labels, torch.ones(2, 12).double()))
    )


def test_whether_scores_are_sigmoids_is_the_inner_loss_s_word():
    assert HardNegativeMiningLoss(loss=FOCAL).use_sigmoid is True
    assert HardNegativeMiningLoss(loss=FOCAL, use_sigmoid=True).use_sigmoid is True
    assert HardNegativeMiningLoss(use_sigmoid=False).use_sigmoid is False
    smooth = dict(type='torch.nn.CrossEntropyLoss')
    assert HardNegativeMiningLoss(loss=smooth).use_sigmoid is False
    for inner, said in ((FOCAL, False), (dict(type='CrossEntropyLoss'), True)):
        with pytest.raises(ValueError, match=f'use_sigmoid is {said}, .*use_sigmoid={not said}'):
            HardNegativeMiningLoss(loss=inner, use_sigmoid=said)


def test_selection_carries_no_gradient():
    """The gradient of a selected prior is cross entropy's own, (softmax - one hot) / N."""
    scores, labels = batch(2, (1, 30), positives=0.1)
    HardNegativeMiningLoss()(scores, labels).backward()
    num_pos = int((labels < 3).sum())
    plain = scores.detach().softmax(-1) - torch.nn.functional.one_hot(labels, 4)
    chosen = (scores.grad != 0).any(-1)
    assert chosen.sum() == 4 * num_pos > 0
    torch.testing.assert_close(scores.grad[chosen], plain[chosen] / num_pos)


# ------------------------------------------------------------------- as MMDetection calls a loss


def test_the_sum_is_divided_by_the_average_factor():
    scores, labels = batch(3, (2, 20))
    expected, _ = naive_mining_loss(scores, labels, background=3)
    for factor in (7, 7.0, torch.tensor(7.0)):
        loss = HardNegativeMiningLoss()(scores, labels, avg_factor=factor)
        torch.testing.assert_close(loss, expected / 7)


@pytest.mark.parametrize('shape', [(2, 20), (20,)])
def test_a_reduction_may_be_overridden(shape):
    scores, labels = batch(4, shape)
    loss = HardNegativeMiningLoss()
    each = loss(scores, labels, reduction_override='none')
    assert each.shape == labels.shape
    chosen = (torch.autograd.grad(each.sum(), scores, retain_graph=True)[0] != 0).any(-1)
    plain = torch.nn.functional.cross_entropy(
        scores.flatten(0, -2), labels.flatten(), reduction='none'
    )
    torch.testing.assert_close(each, torch.where(chosen, plain.reshape(shape), 0))
    total = loss(scores, labels, reduction_override='sum')
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(total / (labels < 3).sum(), loss(scores, labels))


def test_loss_weights_multiply():
    scores, labels = batch(6, (2, 20))
    plain = HardNegativeMiningLoss()(scores, labels)
    torch.testing.assert_close(HardNegativeMiningLoss(loss_weight=0.5)(scores, labels), plain / 2)
    inner = dict(type='CrossEntropyLoss', loss_weight=3.0)
    torch.testing.assert_close(HardNegativeMiningLoss(loss=inner)(scores, labels), plain * 3)


# ----------------------------------------------------------------------- in heads of MMDetection

ANCHORS = dict(
    type='AnchorGenerator',
    octave_base_scale=4,
    scales_per_octave=1,
    ratios=[0.5, 1.0, 2.0],
    strides=[8],
)
TRUTH = [instances([[9, 9, 40, 44], [30, 2, 60, 50]], [1, 2]), instances([])]


def other_head(**config):
    """A head of MMDetection's on one level of 8 x 8 cells, with our matching."""
    assigner = dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
    return MODELS.build(
        dict(
            dict(
                num_classes=3,
                in_channels=4,
                feat_channels=4,
                stacked_convs=0,
                anchor_generator=ANCHORS,
                train_cfg=dict(
                    assigner=assigner,
                    sampler=dict(type='PseudoSampler'),
                    allowed_border=-1,
                    pos_weight=-1,
                ),
            ),
            **config,
        )
    )


@pytest.mark.parametrize(
    ('loss_cls', 'naive', 'num_scores'),
    [
        (dict(type='HardNegativeMiningLoss'), cross_entropy, 4),
        (dict(type='HardNegativeMiningLoss', use_sigmoid=True, loss=FOCAL), focal_loss, 3),
    ],
)
def test_retina_head_can_use_it(loss_cls, naive, num_scores):
    """It hands over each level's scores as one set, and divides by the batch's positives."""
    torch.manual_seed(0)
    head = other_head(type='RetinaHead', loss_cls=loss_cls)
    scores, deltas = head([torch.randn(2, 4, 8, 8)])
    metas = image_metas(2)
    loss = head.loss_by_feat(scores, deltas, TRUTH, metas)['loss_cls'][0]

    anchor_list, flags = head.get_anchors([(8, 8)], metas, device='cpu')
    labels, weights, *_, num_pos = head.get_targets(anchor_list, flags, TRUTH, metas)
    flat = scores[0].permute(0, 2, 3, 1).reshape(1, -1, num_scores)
    expected, _ = naive_mining_loss(
        flat, labels[0].reshape(1, -1), 3, weights[0].reshape(1, -1), loss=naive
    )
    assert num_pos > 0
    torch.testing.assert_close(loss, expected / num_pos)


@pytest.mark.filterwarnings('ignore:DeprecationWarning. `num_anchors`')
def test_gfl_head_can_mine_its_quality_focal_loss():
    """What it gives to its own loss, labels with qualities, is mined as one set."""
    torch.manual_seed(0)
    inner = dict(type='QualityFocalLoss')
    head = other_head(
        type='GFLHead',
        anchor_generator=dict(ANCHORS, ratios=[1.0]),
        loss_cls=dict(type='HardNegativeMiningLoss', use_sigmoid=True, loss=inner),
        loss_bbox=dict(type='GIoULoss'),
    )
    seen = []
    head.loss_cls.register_forward_pre_hook(lambda _, *args: seen.append(args), with_kwargs=True)
    head.loss_cls.register_forward_hook(lambda _, args, loss: seen.append(loss))
    outputs = head([torch.randn(2, 4, 8, 8)])
    head.loss_by_feat(*outputs, TRUTH, image_metas(2))
    ((scores, (labels, quality)), options), loss = seen
    assert scores.shape == (128, 3) and (quality[labels < 3] > 0).any()
    expected, num_pos = naive_mining_loss(
        scores[None],
        labels[None],
        3,
        options['weight'][None],
        loss=quality_focal_loss,
        quality=quality[None].tolist(),
    )
    assert num_pos > 0
    torch.testing.assert_close(loss, expected / options['avg_factor'])


# ------------------------------------------------------------------------- what docs/losses.md says

DOCS = (Path(__file__).resolve().parents[2] / 'docs/losses.md').read_text()
PRIORS = sum(naive_priors(TINY), [])
MATCHED_BOXES = [clear_cut_boxes(3, 1, PRIORS), clear_cut_boxes(2, 5, PRIORS)]
MATCHED_LABELS = [[0, 1, 2], [2, 0]]
PRIOR_LABELS = [
    [*own, 3][g - 1]  # g is 0 where unmatched
    for boxes, own in zip(MATCHED_BOXES, MATCHED_LABELS)
    for g in naive_match(PRIORS, boxes)[0]
]


def table(heading):
    """The rows of the table under a heading: cells, the first of them as the config it is."""
    rows = [
        [cell.strip() for cell in line.strip('|').split(' | ')]
        for line in DOCS.split(f'## {heading}\n')[1].split('\n## ')[0].splitlines()
        if line.startswith('| `')
    ]
    return {row[0].strip('`'): [eval(row[0].strip('`')), *row[1:]] for row in rows}


CLASSIFICATION, REGRESSION = table('Classification'), table('Regression')


def head_loss(head, scores, deltas):
    truth = [instances(b, label) for b, label in zip(MATCHED_BOXES, MATCHED_LABELS)]
    return head.loss_by_feat(to_levels(scores), to_levels(deltas), truth, image_metas(2))


def outputs_of(head, spread=1.0):
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 368, head.cls_out_channels, generator=generator)
    deltas = spread * torch.randn(2, 368, 4, generator=generator)
    return scores.requires_grad_(), deltas.requires_grad_()


def assert_head_computes(head, part, expected, scores, deltas):
    """One of the two losses and its gradients."""
    inputs = scores if part == 'loss_cls' else deltas
    found = head_loss(head, scores, deltas)[part]
    assert_same_loss_and_gradient(found, expected, [inputs], rtol=1e-4, atol=1e-5)


NAIVE_CLASSIFICATION = {
    "dict(type='CrossEntropyLoss')": cross_entropy,
    "dict(type='CrossEntropyLoss', class_weight=[2, 1, 3, 0.5])": weighted(
        cross_entropy, [2, 1, 3, 0.5]
    ),
    "dict(type='torch.nn.CrossEntropyLoss', label_smoothing=0.1)": smooth_cross_entropy,
    "dict(type='CrossEntropyLoss', use_sigmoid=True)": sigmoid_cross_entropy,
    "dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[2, 1, 3])": (
        lambda scores, label: sigmoid_cross_entropy(scores, label, [2, 1, 3])
    ),
    "dict(type='FocalLoss')": focal_loss,
    "dict(type='QualityFocalLoss')": quality_focal_loss,
    "dict(type='VarifocalLoss')": varifocal_loss,
    "dict(type='GHMC')": None,  # no loss of one prior: it weights each by all the others
}


@pytest.mark.parametrize('min_negatives', [None, 0, 50], ids=['alone', 'mined', 'mined, 50'])
@pytest.mark.parametrize('row', CLASSIFICATION)
def test_a_classification_loss_of_the_table(row, min_negatives):
    config, num_scores, alone, mined, _ = CLASSIFICATION[row]
    naive, loss_cls = NAIVE_CLASSIFICATION[row], config
    if min_negatives is not None:
        loss_cls = dict(type='HardNegativeMiningLoss', loss=config, min_negatives=min_negatives)
    head = tiny_head(loss_cls=loss_cls)
    assert head.cls_out_channels == {'C': 3, 'C + 1': 4}[num_scores]
    scores, deltas = outputs_of(head)
    if (alone if min_negatives is None else mined) == 'no':
        with pytest.raises(TypeError):
            head_loss(head, scores, deltas)
        return
    if naive is None:
        rows, labels = scores.flatten(0, 1), torch.tensor(PRIOR_LABELS)
        expected = MODELS.build(config)(rows, labels, torch.ones(len(labels)))
        assert_head_computes(head, 'loss_cls', expected, scores, deltas)
        return
    expected, _ = naive_head_loss(
        scores,
        deltas,
        PRIORS,
        MATCHED_BOXES,
        MATCHED_LABELS,
        loss=naive,
        sigmoid=num_scores == 'C',
        learns_quality=naive in (quality_focal_loss, varifocal_loss),
        min_negatives=math.inf if min_negatives is None else min_negatives,
    )
    assert_head_computes(head, 'loss_cls', expected, scores, deltas)


def mmdetections(config):
    """MMDetection's own loss of two boxes, or of two times four numbers."""
    loss = MODELS.build(config)

    def each(a, b):
        a, b = (torch.stack([torch.as_tensor(x) for x in v])[None].float() for v in (a, b))
        return loss(a, b, reduction_override='none').sum()

    return each


BALANCED = mmdetections(dict(type='BalancedL1Loss'))
NAIVE_REGRESSION = {
    "dict(type='SmoothL1Loss', beta=1.0)": (PAPER_REGRESSION, pixel_loss(smooth_l1)),
    "dict(type='L1Loss')": (offset_loss(abs), pixel_loss(abs)),
    "dict(type='BalancedL1Loss')": (
        offset_loss(lambda d: BALANCED([d], [0.0])),
        box_loss(BALANCED),
    ),
    "dict(type='IoULoss')": (None, box_loss(iou_loss)),
    "dict(type='GIoULoss')": (None, box_loss(giou_loss)),
    "dict(type='DIoULoss')": (None, box_loss(diou_loss)),
    "dict(type='CIoULoss')": (None, box_loss(ciou_loss)),
    **{
        f"dict(type='{name}')": (None, box_loss(mmdetections(dict(type=name))))
        for name in ('EIoULoss', 'SIoULoss', 'BoundedIoULoss')
    },
}


@pytest.mark.parametrize('decoded', [False, True], ids=['offsets', 'boxes'])
@pytest.mark.parametrize('row', REGRESSION)
def test_a_regression_loss_of_the_table(row, decoded):
    config, offsets, boxes, _ = REGRESSION[row]
    build = lambda: tiny_head(loss_bbox=config, reg_decoded_bbox=decoded)  # noqa: E731
    if (boxes if decoded else offsets) == 'no':
        with pytest.raises(ValueError, match='compares boxes and not deltas'):
            build()
        return
    head = build()
    nothing = head.loss_by_feat(*head(tiny_features(1)), [instances([])], image_metas(1))
    nothing['loss_bbox'].backward()  # a distributed run waits for every gradient
    assert nothing['loss_bbox'] == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.reg_convs.parameters())

    scores, deltas = outputs_of(head)
    _, expected = naive_head_loss(
        scores,
        deltas,
        PRIORS,
        MATCHED_BOXES,
        MATCHED_LABELS,
        loss=lambda scores, label: scores[label],  # that loss is not looked at here
        regression=NAIVE_REGRESSION[row][decoded],
    )
    assert_head_computes(head, 'loss_bbox', expected, scores, deltas)


@pytest.mark.parametrize(('inner', 'naive'), [(None, cross_entropy), (FOCAL, focal_loss)])
def test_images_without_objects_teach_by_their_hardest_negatives(inner, naive):
    loss = dict(type='HardNegativeMiningLoss', min_negatives=5)
    head = tiny_head(loss_cls=dict(loss, loss=inner) if inner else loss)
    scores, deltas = outputs_of(head)
    expected, _ = naive_head_loss(
        scores, deltas, PRIORS, [[], []], [[], []],
        loss=naive, sigmoid=naive is focal_loss, min_negatives=5,
    )  # fmt: skip
    assert expected > 0
    found = head.loss_by_feat(
        to_levels(scores), to_levels(deltas), [instances([])] * 2, image_metas(2)
    )
    assert_same_loss_and_gradient(found['loss_cls'], expected, [scores], rtol=1e-4, atol=1e-5)


def test_the_tables_rows_are_those_tested_here():
    assert list(CLASSIFICATION) == list(NAIVE_CLASSIFICATION)
    assert list(REGRESSION) == list(NAIVE_REGRESSION)


BLOCKS = [
    textwrap.dedent(code) for code in re.findall(r'^ *```python\n(.*?)```', DOCS, re.S | re.M)
]


@pytest.mark.parametrize('code', BLOCKS, ids=range(len(BLOCKS)))
def test_a_config_of_the_page_builds(code, tmp_path):
    """`loss_cls` is put into a head of ours, `model` over the config of SSD300 or of RetinaNet."""
    code = textwrap.dedent(code)
    if code.startswith('loss_cls'):
        config = {}
        exec(code, config)
        head = tiny_head(loss_cls=config['loss_cls'])
        losses = head_loss(head, *outputs_of(head))
        assert all(0 < loss < math.inf for loss in losses.values())
        return
    base = str(Path(__file__).resolve().parents[2] / 'configs/ssd300_voc.py')
    if 'assigner' in code:
        base = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n{code}')
    model = Config.fromfile(tmp_path / 'config.py').model
    head = MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=model.test_cfg))
    for part in ('loss_cls', 'loss_bbox'):
        assert type(getattr(head, part)).__name__ == model.bbox_head[part].type
    if 'bias_prob' in code:
        head.init_weights()
        for branches, chance in ((head.cls_convs, 0.01), (head.reg_convs, 0.5)):
            for bias in (conv.bias for branch in branches for conv in branch):
                torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, chance))


# -------------------------------------------------------------------------------------- torchvision

BOXES = [
    [[4.0, 5, 17, 15], [20, 22, 49, 53], [40, 3, 63, 20]],
    [[1.0, 2, 60, 62]],
    [[30.0, 30, 41, 44], [33, 31, 43, 45], [2, 40, 25, 60]],
]
LABELS = [[0, 2, 1], [1], [2, 0, 0]]


@pytest.mark.parametrize('seed', range(3))
def test_the_head_s_loss_is_torchvision_s(seed):
    """Same scores, deltas and matches: the same two losses and the same gradients."""
    head = tiny_head()
    generator = torch.Generator().manual_seed(seed)
    scores = (2 * torch.randn(3, 368, 4, generator=generator)).requires_grad_()
    deltas = torch.randn(3, 368, 4, generator=generator).requires_grad_()
    truth = [instances(boxes, labels) for boxes, labels in zip(BOXES, LABELS)]
    ours = head.loss_by_feat(to_levels(scores), to_levels(deltas), truth, image_metas(3))

    priors = torch.cat(head.prior_generator.grid_priors([(8, 8), (4, 4), (2, 2)], device='cpu'))
    matches = []
    for gt in truth:
        mask = torch.ones(1, len(gt.bboxes), dtype=torch.bool)
        result = head.assigner.assign_batch(priors, gt.bboxes[None], gt.labels[None], mask)
        matches.append(result.gt_inds[0] - 1)
    assert all((match >= 0).any() and 4 * (match >= 0).sum() < len(match) for match in matches)
    settings_of_ssd = SimpleNamespace(
        box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3.0
    )
    theirs = SSD.compute_loss(
        settings_of_ssd,
        [dict(boxes=gt.bboxes, labels=gt.labels + 1) for gt in truth],
        dict(
            bbox_regression=deltas,
            cls_logits=torch.cat([scores[..., -1:], scores[..., :-1]], -1),  # background first
        ),
        [priors] * 3,
        matches,
    )
    assert_same_loss_and_gradient(
        ours['loss_cls'], theirs['classification'], [scores], rtol=1e-5, atol=1e-6
    )
    assert_same_loss_and_gradient(
        ours['loss_bbox'], theirs['bbox_regression'], [deltas], rtol=1e-5, atol=1e-6
    )


@examples
@given(
    seed=st.integers(0, 10**6), images=st.integers(1, 4), positives=st.sampled_from([0, 0.1, 0.2])
)
def test_mining_is_torchvision_s_on_the_same_scores(seed, images, positives):
    scores, labels = batch(seed, (images, 40), positives=positives)
    if ((labels < 3).sum(1) > 10).any():  # there torchvision counts positives twice
        labels[:, 10:] = 3
    found = labels < 3
    head_outputs = dict(
        bbox_regression=torch.zeros(images, 40, 4),
        cls_logits=torch.cat([scores[..., -1:], scores[..., :-1]], -1),
    )
    targets = [dict(boxes=torch.ones(40, 4).cumsum(1), labels=row + 1) for row in labels]
    boxes = [torch.ones(40, 4).cumsum(1)] * images
    matches = [torch.where(row, torch.arange(40), -1) for row in found]
    config = SimpleNamespace(box_coder=BoxCoder(weights=(10.0,) * 4), neg_to_pos_ratio=3.0)
    theirs = SSD.compute_loss(config, targets, head_outputs, boxes, matches)['classification']
    assert_same_loss_and_gradient(HardNegativeMiningLoss()(scores, labels), theirs, [scores])
