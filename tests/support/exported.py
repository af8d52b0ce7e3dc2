"""Detectors with random weights that find much, and images for them."""

import cv2
import numpy as np
import torch
from mmdet.models.necks.ssd_neck import L2Norm
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ssd_plugin.datasets.shapes import draw_image
from ssd_plugin.export.graph import Detections
from ssd_plugin.export.onnx_file import build_onnx, describe
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
    head, images = detector.bbox_head, drawn_images(1, size, torch.float32)[0]['inputs'][None]
    with torch.no_grad():
        feats = detector.extract_feat(detector.data_preprocessor(dict(inputs=images))['inputs'])
        for branch, spread in ((head.cls_convs, 1.5), (head.reg_convs, 1)):
            for conv, feat in zip(branch, feats):
                last = [layer for layer in conv.modules() if hasattr(layer, 'kernel_size')][-1]
                last.bias.zero_()
                last.weight *= spread / conv(feat).square().mean().sqrt()
    return detector


def export(detector, size, path, dtype=torch.uint8, graph=Detections, classes=None):
    """Write the file, with names for its classes."""
    names = classes or tuple(f'class {c}' for c in range(detector.bbox_head.num_classes))
    model = build_onnx(graph(detector, size), size, dtype, describe(names, size, 'config.py'))
    path.write_bytes(model.SerializeToString())
    return path
