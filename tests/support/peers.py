"""Other implementations of SSD, with random weights from which detections come.

Letters as in the package: B images, P priors, K scores of a prior, L levels.
"""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, relu
from torchvision.ops import box_convert, nms

from tests.support.helpers import MODEL_TABLE, naive_priors


def random_image(height=300, width=300, seed=0):
    """(H, W, 3) uint8: soft blots of many sizes, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    blots = sum(
        nn.functional.interpolate(
            torch.randn(1, 3, n, n, generator=generator), size=(height, width), mode='bicubic'
        )
        for n in (3, 9, 30, 100)
    )
    values = 128 + 40 * blots[0].permute(1, 2, 0)
    return values.clamp(0, 255).round().numpy().astype(np.uint8)


def on_first_input(module, change):
    """Call ``change(module, inputs)`` when the module is first used, just before."""

    def once(module, inputs):
        handle.remove()
        with torch.no_grad():
            change(module, inputs[0])

    handle = module.register_forward_pre_hook(once)


def randomise_norms(model, seed=0):
    """Give batch normalisation statistics, scales and shifts as after some training.

    The statistics are those of the first image, and some noise, so that the signal lasts through
    all layers; but where it hardly varies it stays weak, or rounding would grow with it.
    """
    generator = torch.Generator().manual_seed(seed)

    def randomise(norm, inputs):
        var, mean = torch.var_mean(inputs, dim=(0, 2, 3), unbiased=False)
        noise = torch.randn(3, len(mean), generator=generator) / 4
        norm.running_mean.copy_(mean + noise[0] * var.sqrt())
        norm.running_var.copy_(var.clamp(min=1e-2) * noise[1].exp())
        norm.weight.copy_(noise[2].exp())
        norm.bias.copy_(torch.randn(len(mean), generator=generator) / 4)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            on_first_input(module, randomise)


def make_outputs_spread(class_convs, box_convs, background, num_scores, lead=12.5, seed=0):
    """Have the last layers answer with useful numbers, whatever reaches them.

    With the first image, offsets get a deviation of 1, and scores one of 2.

    Args:
        background: The index of background among a prior's scores; negative from the end.
        lead: By how much it is ahead on average. It decides how many (prior, class) pairs have a
            score above the threshold: hundreds, so that the last one that counts is no near tie.
    """
    generator = torch.Generator().manual_seed(seed)

    def scale(conv, inputs, deviation):
        conv.weight *= deviation / conv2d(inputs, conv.weight, padding=conv.padding).std()

    for convs, deviation in ((class_convs, 2.0), (box_convs, 1.0)):
        for conv in convs:
            conv.weight.data = torch.randn(conv.weight.shape, generator=generator)
            conv.bias.data = torch.randn(conv.bias.shape, generator=generator) / 2
            on_first_input(conv, partial(scale, deviation=deviation))
    for conv in class_convs:
        conv.bias.data.view(-1, num_scores)[:, background] += lead


def torchvision_model(factory, num_scores, **spread):
    """A detector of torchvision's with useful outputs; ``spread`` is `make_outputs_spread`'s."""
    torch.manual_seed(0)
    model = factory(weights=None, weights_backbone=None, num_classes=num_scores)
    randomise_norms(model)
    layers = [
        [[m for m in level.modules() if isinstance(m, nn.Conv2d)][-1] for level in head.module_list]
        for head in (model.head.classification_head, model.head.regression_head)
    ]
    make_outputs_spread(*layers, background=0, num_scores=num_scores, **spread)
    return model.eval()


def run_torchvision(model, rgb):
    """Scores (1, P, K), offsets (1, P, 4) and detections of an image (H, W, 3) uint8."""
    outputs = {}
    hook = model.head.register_forward_hook(lambda *args: outputs.update(args[-1]))
    with torch.no_grad():
        (found,) = model([torch.tensor(rgb).permute(2, 0, 1) / 255])
    hook.remove()
    # Its classes are counted from 1.
    found = (found['boxes'], found['scores'], found['labels'] - 1)
    return outputs['cls_logits'], outputs['bbox_regression'], found


class SSDPyTorch(nn.Module):
    """SSD for VOC as ssd.pytorch (github.com/amdegroot/ssd.pytorch) and lufficc/SSD have it.

    Written from its published structure: a list of VGG's layers, normalisation after conv4_3,
    extra layers with ReLU between all of them, background as class 0.
    """

    widths = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'C', 512, 512, 512, 'M', 512, 512, 512)
    extra_layers = {
        300: (
            (1024, 256, 1), (256, 512, 3, 2, 1), (512, 128, 1), (128, 256, 3, 2, 1),
            (256, 128, 1), (128, 256, 3), (256, 128, 1), (128, 256, 3),
        ),
        512: (
            (1024, 256, 1), (256, 512, 3, 2, 1), (512, 128, 1), (128, 256, 3, 2, 1),
            (256, 128, 1), (128, 256, 3, 2, 1), (256, 128, 1), (128, 256, 3, 2, 1),
            (256, 128, 1), (128, 256, 4, 1, 1),
        ),
    }  # fmt: skip

    def __init__(self, num_scores=21, side=300, **prior_changes):
        super().__init__()
        self.num_scores, self.side = num_scores, side
        self.prior_table = MODEL_TABLE[f'SSD{side} VOC'] | prior_changes
        layers, channels = [], 3
        for width in self.widths:
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=width == 'C'))
        layers += [
            nn.MaxPool2d(3, 1, padding=1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True),
        ]  # fmt: skip
        self.vgg = nn.ModuleList(layers)
        self.L2Norm = nn.Module()
        self.L2Norm.weight = nn.Parameter(torch.full((512,), 20.0))
        self.extras = nn.ModuleList(nn.Conv2d(*args) for args in self.extra_layers[side])
        self.loc, self.conf = nn.ModuleList(), nn.ModuleList()
        widths = [512, 1024, *(conv.out_channels for conv in self.extras[1::2])]
        for width, ratios in zip(widths, self.prior_table['ratios']):
            num_priors = 2 + 2 * len(ratios)
            self.loc.append(nn.Conv2d(width, num_priors * 4, 3, padding=1))
            self.conf.append(nn.Conv2d(width, num_priors * num_scores, 3, padding=1))

    def forward(self, x):
        """Scores (B, P, K) and offsets (B, P, 4) of images (B, 3, side, side)."""
        for layer in self.vgg[:23]:
            x = layer(x)
        norm = x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10
        sources = [self.L2Norm.weight[None, :, None, None] * x / norm]
        for layer in self.vgg[23:]:
            x = layer(x)
        sources.append(x)
        for i, layer in enumerate(self.extras):
            x = relu(layer(x))
            if i % 2:
                sources.append(x)
        maps = [
            torch.cat([c(s).permute(0, 2, 3, 1).flatten(1) for c, s in zip(convs, sources)], dim=1)
            for convs in (self.conf, self.loc)
        ]
        return maps[0].view(len(x), -1, self.num_scores), maps[1].view(len(x), -1, 4)

    def priors(self):
        """(P, 4) as centre, width and height, in shares of the input."""
        boxes = torch.tensor(sum(naive_priors(self.prior_table), []), dtype=torch.double)
        return (box_convert(boxes, 'xyxy', 'cxcywh') / self.side).clamp(0, 1).float()

    def detect(self, scores, offsets, most_of_class=200, most=None):
        """Boxes in shares of the image, scores and labels from 0, of one image.

        Above 0.01, the best of each class, NMS at 0.45 within it, the best of all.
        """
        priors = self.priors()
        boxes = torch.cat(
            [
                priors[:, :2] + offsets[:, :2] * 0.1 * priors[:, 2:],
                priors[:, 2:] * torch.exp(offsets[:, 2:] * 0.2),
            ],
            dim=1,
        )
        boxes, found = box_convert(boxes, 'cxcywh', 'xyxy'), []
        for label, values in enumerate(scores.softmax(-1).T[1:]):
            best = values.argsort(descending=True)[:most_of_class]
            best = best[values[best] > 0.01]
            best = best[nms(boxes[best].double(), values[best].double(), 0.45)]
            found.append((boxes[best], values[best], torch.full_like(best, label)))
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found))
        order = scores.argsort(descending=True)[:most]
        return boxes[order], scores[order], labels[order]
