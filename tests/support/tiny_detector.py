"""A detector small enough to learn three images in a second, and inputs for its training step."""

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import HOOKS
from torch import nn

from tests.support import helpers as h

# Each kind of loss and of matching that a step can have: options of the head.
HEADS = {
    'as in the paper': {},
    'images without boxes teach': dict(
        loss_cls=dict(type='HardNegativeMiningLoss', min_negatives=5)
    ),
    'smooth labels': dict(loss_cls=h.mined(type='torch.nn.CrossEntropyLoss', label_smoothing=0.1)),
    'sigmoid': dict(loss_cls=h.mined(type='CrossEntropyLoss', use_sigmoid=True)),
    'focal': dict(loss_cls=dict(type='FocalLoss')),
    'focal, mined': dict(loss_cls=h.mined(type='FocalLoss')),
    'boxes in pixels, and their quality': dict(
        reg_decoded_bbox=True,
        loss_bbox=dict(type='GIoULoss'),
        loss_cls=h.mined(type='VarifocalLoss'),
    ),
    'ignored boxes': dict(
        train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner', ignore_iof_thr=0.5))
    ),
    'PISA': dict(
        type='PISASSDMultiBoxHead',
        train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner'), isr={}, carl={}),
    ),
}


def step_inputs(head, memory=torch.contiguous_format):
    """What `loss_by_feat` takes: maps with a gradient, and the ground truth of three images."""
    batch = h.random_batch(num_scores=head.cls_out_channels)
    maps = [
        [m.detach().contiguous(memory_format=memory).requires_grad_() for m in h.to_levels(flat)]
        for flat in (batch.scores, batch.deltas)
    ]
    truth = list(map(h.instances, batch.boxes, batch.labels))
    return (*maps, truth, h.image_metas(3), [h.instances([[20, 20, 60, 60]])] * 3)


def losses_and_gradients(loss, inputs):
    losses = loss(*inputs)
    maps = [*inputs[0], *inputs[1]]
    return [*losses.values(), *torch.autograd.grad(sum(losses.values()), maps)]


@MODELS.register_module(force=True)
class ThreeMaps(nn.Module):
    """A backbone of three convolutions: 64 px to maps of 8, 4 and 2."""

    def __init__(self):
        super().__init__()
        widths, strides = (3, *h.TINY_CHANNELS), (8, 2, 2)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, s + 1, stride=s, padding=s // 2)
            for a, b, s in zip(widths, widths[1:], strides)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x):
        maps = []
        for conv in self.convs:
            x = conv(x).relu()
            maps.append(x)
        return tuple(maps)


def tiny_detector(num_classes=3):
    """The same one whenever it is called."""
    torch.manual_seed(0)
    config = dict(
        type='SingleStageDetector',
        data_preprocessor=dict(type='SSDDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3),
        backbone=dict(type='ThreeMaps'),
        bbox_head=h.tiny_head_config(num_classes),
        **h.TINY_CFG,
    )
    model = MODELS.build(config)
    model.init_weights()
    return model


def channels_last(model):
    """The model as the hook leaves it, which sees of a runner just the model."""
    runner = type('Runner', (), dict(model=model))
    HOOKS.build(dict(type='ChannelsLastHook')).before_run(runner)
    return model


BOXES = [[[5, 6, 30, 28], [36, 30, 58, 60]], [], [[20, 10, 40, 50]]]


def labels_of(model):
    """Of those boxes: 0, 1 and 2, or 0 alone in a model of one class."""
    return [[g % model.bbox_head.num_classes for g in own] for own in ([0, 1], [], [2])]


def data(model, scale=(1.0, 1.0)):
    """A batch as MMDetection's loader gives it: grey images, with a bright rectangle a box."""
    batch = dict(inputs=[], data_samples=[])
    for boxes, labels, meta in zip(BOXES, labels_of(model), h.image_metas(3, scale=scale)):
        image = torch.full((3, 64, 64), 60, dtype=torch.uint8)
        for (x1, y1, x2, y2), label in zip(boxes, labels):
            image[label, y1:y2, x1:x2] = 230
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances, sample.ignored_instances = h.instances(boxes, labels), h.instances([])
        batch['inputs'].append(image)
        batch['data_samples'].append(sample)
    return batch


def train(model, wrapper, steps, **options):
    """The loss of each step."""
    optimizer = wrapper(optimizer=torch.optim.Adam(model.parameters(), lr=0.01), **options)
    return [model.train_step(data(model), optimizer)['loss'] for _ in range(steps)]


def assert_finds_its_boxes(model):
    """The boxes that it was trained on, in pixels of images of another size, and no others."""
    samples = model.eval().test_step(data(model, scale=(0.5, 0.25)))
    for sample, boxes, labels in zip(samples, BOXES, labels_of(model), strict=True):
        found = sample.pred_instances[sample.pred_instances.scores > 0.5].cpu()
        rows = zip(found.labels.tolist(), found.bboxes.float() * torch.tensor([0.5, 0.25] * 2))
        rows = sorted(rows, key=lambda row: (row[0], row[1][0]))
        assert [label for label, _ in rows] == labels
        for (_, box), truth in zip(rows, boxes):
            assert (box - torch.tensor(truth)).abs().max() < 3
