"""The floor of a training step: the same convolutions, and what carries data between them."""

from __future__ import annotations

from torch import Tensor, nn

from .configs import LEVELS, NUM_CLASSES

# VGG-16: channels of 3x3 convolutions, and poolings between the stages.
TO_CONV4_3 = (64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 'pool', 512, 512, 512)
CONV5 = ('pool', 512, 512, 512)
# Of each extra level: channels of its 1x1 and of its 3x3 convolution, and the latter's stride.
EXTRAS = ((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))


class BareSSD300(nn.Module):
    """SSD300-VGG's convolutions, ReLUs and poolings: no normalisation, priors, matching, loss."""

    def __init__(self) -> None:
        super().__init__()
        conv4_3 = vgg_layers(TO_CONV4_3, 3)
        fc7 = nn.Sequential(
            *vgg_layers(CONV5, 512),
            nn.MaxPool2d(3, stride=1, padding=1),
            *conv_relu(512, 1024, kernel=3, padding=6, dilation=6),
            *conv_relu(1024, 1024, kernel=1),
        )
        self.levels = nn.ModuleList([conv4_3, fc7])
        channels = 1024
        for squeezed, out, stride in EXTRAS:
            padding = stride - 1  # the last two levels shrink by two pixels instead
            squeeze = conv_relu(channels, squeezed, kernel=1)
            expand = conv_relu(squeezed, out, kernel=3, stride=stride, padding=padding)
            self.levels.append(nn.Sequential(*squeeze, *expand))
            channels = out
        self.heads = nn.ModuleList()
        for channels, ratios in zip(LEVELS[300]['channels'], LEVELS[300]['ratios']):
            priors = 2 + 2 * len(ratios)
            for outputs in (priors * (NUM_CLASSES + 1), priors * 4):
                self.heads.append(nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, 300, 300) to the heads' maps."""
        maps = []
        for i, level in enumerate(self.levels):
            x = level(x)
            maps += [head(x) for head in self.heads[2 * i : 2 * i + 2]]
        return maps


def vgg_layers(layers: tuple, channels: int) -> nn.Sequential:
    modules = []
    for layer in layers:
        if layer == 'pool':
            modules.append(nn.MaxPool2d(2, ceil_mode=True))
        else:
            modules += conv_relu(channels, layer, kernel=3, padding=1)
            channels = layer
    return nn.Sequential(*modules)


def conv_relu(channels: int, outputs: int, kernel: int, **options) -> list[nn.Module]:
    return [nn.Conv2d(channels, outputs, kernel, **options), nn.ReLU(inplace=True)]
