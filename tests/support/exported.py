"""Detectors with random weights that find much, and images for them."""

import cv2
import numpy as np
import torch
from mmdet.models.necks.ssd_neck import L2Norm
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from ssd_plugin.datasets.config import input_size
from ssd_plugin.datasets.shapes import draw_image
from ssd_plugin.export.graph import Detections
from ssd_plugin.export.metadata import describe
from ssd_plugin.export.onnx_file import build_onnx
from tests.support.commands import ROOT


def read_config(name, **changes):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    return cfg


def drawn_images(count, size, dtype=torch.uint8):
    """What a test pipeline would hand over: ``inputs`` and ``data_samples`` of each image."""
    images = []
    for number in range(count):
        image = draw_image(np.random.default_rng(number))[0]
        height, width = image.shape[:2]
        inputs = torch.from_numpy(cv2.resize(image, size)).permute(2, 0, 1).to(dtype)
        shapes = dict(ori_shape=(height, width), img_shape=size[::-1])
        scale_factor = size[0] / width, size[1] / height
        sample = DetDataSample(metainfo=dict(shapes, scale_factor=scale_factor))
        images.append(dict(inputs=inputs, data_samples=sample))
    return images


def lively_detector(cfg, size, seed=0):
    """Random weights, whose scores and offsets spread as those of a trained detector do."""
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    detector = MODELS.build(cfg.model).eval()
    for module in detector.modules():
        if isinstance(module, L2Norm):  # whose weight is not set before init_weights
            torch.nn.init.constant_(module.weight, 20)
    images = torch.stack([image['inputs'] for image in drawn_images(2, size, torch.float32)])
    inputs = detector.data_preprocessor(dict(inputs=images))['inputs']
    measure_statistics(detector, inputs)
    made_by = {}  # the convolution that yields a tensor
    hooks = [
        module.register_forward_hook(lambda module, _, output: made_by.update({output: module}))
        for module in detector.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        for maps, spread in zip(detector(inputs[:1], mode='tensor'), (1.5, 1)):
            spreads = {}  # the largest of a convolution's levels, which heads may share
            for level in maps:
                last = made_by[level]
                now = (level - last.bias[:, None, None]).square().mean().sqrt()
                spreads[last] = max(now, spreads.get(last, now))
            for last, now in spreads.items():
                last.weight *= spread / now
                last.bias.zero_()
    for hook in hooks:
        hook.remove()
    return detector


@torch.no_grad()
def measure_statistics(detector, inputs):
    """Set the running statistics of batch normalisation to those of a batch.

    A variance below a layer's mean becomes the mean: of a few values it may be almost 0, and
    rounding errors would grow by it.
    """
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1
        norm.train()
    if norms:
        detector(inputs, mode='tensor')
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        norm.running_var.clamp_(min=norm.running_var.mean())
        norm.eval()


def export(detector, size, path, dtype=torch.uint8, graph=Detections, classes=None):
    """Write the file, with names for its classes."""
    names = classes or tuple(f'class {c}' for c in range(detector.bbox_head.num_classes))
    meta = describe(detector, names, size, 'config.py')
    model = build_onnx(graph(detector, size), size, dtype, meta)
    path.write_bytes(model.SerializeToString())
    return path


def normalised_detector(name):
    """A config's detector with random statistics, and the size of its input."""
    cfg = read_config(name)
    cfg.model.backbone.update(
        {key: None for key in ('weights', 'pretrained') if key in cfg.model.backbone}
    )
    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model).eval()
    for module in detector.modules():
        if isinstance(module, L2Norm):  # whose weight is not set before init_weights
            nn.init.constant_(module.weight, 20)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.2)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.8, 1.2)
    return detector, input_size(cfg)
