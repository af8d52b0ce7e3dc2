"""What backbones that are a part of a library's classification model have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssd_plugin.errors import CheckpointError, one_line


class ClassifierBackbone(BaseModule):
    """A library's classification model, up to the feature maps that are asked for.

    It keeps what is frozen in evaluation mode, and loads trained weights once, when MMEngine
    initialises the detector: one that is built to load a checkpoint needs no file.

    Args:
        name: Name of the model in its library.
        weights: What to start from: a file, or what the library downloads; nothing if it is false.
        norm_eval: Whether batch normalisation stays in evaluation mode in training.
        init_cfg: Initialisation. Not together with ``weights``, but for
            ``dict(type='Pretrained', checkpoint=FILE)``, whose file takes their place: a config may
            so name a file over the one that it inherits from.

    Attributes:
        out_channels: Channels of each map.
        out_strides: Stride of each map in pixels.
        preprocessing: ``mean``, ``std`` and ``bgr_to_rgb`` that the weights ask for, as
            ``DetDataPreprocessor`` takes them.

    Raises:
        ValueError: If there are both ``weights`` and ``init_cfg``.
    """

    out_channels: tuple[int, ...]
    out_strides: tuple[int, ...]
    preprocessing: dict

    def __init__(
        self,
        name: str,
        weights: str | bool | None,
        norm_eval: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        if isinstance(init_cfg, dict) and init_cfg.keys() == {'type', 'checkpoint'}:
            weights, init_cfg = init_cfg['checkpoint'], None
        if weights and init_cfg:
            raise ValueError(f'{type(self).__name__} takes weights or init_cfg, not both')
        super().__init__(init_cfg)
        self.name, self.weights, self.norm_eval = name, weights, norm_eval
        self._frozen: list[str] = []  # names of modules

    def freeze(self, names: set[str]) -> None:
        """Freeze parameters by name; modules that have no others stay in evaluation mode."""
        for name, parameter in self.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        for name, module in self.named_modules():
            own = {f'{name}.{key}' for key, _ in module.named_parameters()}
            if own and own <= names:
                self._frozen.append(name)

    def train(self, mode: bool = True) -> ClassifierBackbone:
        """Set the mode, but for frozen layers, and for batch normalisation if ``norm_eval``."""
        super().train(mode)
        if mode:
            for name in self._frozen:
                self.get_submodule(name).eval()
            for module in self.modules():
                if self.norm_eval and isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Load ``weights``, or initialise by ``init_cfg``; a second call does nothing.

        Raises:
            CheckpointError: If the weights can't be had, or do not fit the model.
        """
        first = not self.is_init
        super().init_weights()
        if not first or not self.weights:
            return
        address = self.address()
        print_log(f'{self.name} starts from {address or self.weights}', 'current')
        if address is None:
            self.load_file(str(self.weights))
            return
        try:
            self.download()
        except OSError as error:
            what = f"can't download the weights of {self.name} from {address} ({one_line(error)})"
            remedy = f'download them elsewhere, and name the file in place of {self.weights!r}'
            raise CheckpointError(f'{what}: {remedy}') from error

    @abstractmethod
    def address(self) -> str | None:
        """Where the library has ``weights`` from; None if they are a file."""

    @abstractmethod
    def download(self) -> None:
        """Load the library's weights; an OSError if they can't be had."""

    @abstractmethod
    def load_file(self, path: str) -> None:
        """Load a file; a CheckpointError if it is not the model's weights."""


def parameters_behind(feature_map: Tensor, model: nn.Module) -> set[str]:
    """Names of the parameters of a model that a map was computed from."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(
        feature_map.sum(), list(parameters.values()), allow_unused=True, retain_graph=True
    )
    return {name for name, gradient in zip(parameters, gradients) if gradient is not None}
