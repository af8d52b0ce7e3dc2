"""What backbones that are a part of a library's classification model have in common."""

from __future__ import annotations

from abc import abstractmethod

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class ClassifierBackbone(BaseModule):
    """A library's classification model, up to the feature maps that are asked for.

    It keeps what is frozen in evaluation mode, and loads trained weights once, when MMEngine
    initialises the detector: one that is built to load a checkpoint needs no file.

    Args:
        name: Name of the model in its library.
        weights: What to start from; nothing if it is false.
        norm_eval: Whether batch normalisation stays in evaluation mode in training.
        init_cfg: Initialisation. Not together with ``weights``.

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
        super().__init__(init_cfg)
        if weights and init_cfg:
            raise ValueError(f'{type(self).__name__} takes weights or init_cfg, not both')
        self.name, self.weights, self.norm_eval = name, weights, norm_eval
        self._frozen: list[str] = []  # names of modules

    def freeze(self, layers: list[str]) -> None:
        """Freeze parameters and modules, by name; modules then stay in evaluation mode.

        Layers that are not here were dropped, since they come after the maps.
        """
        here = dict(self.named_parameters()) | dict(self.named_modules())
        here = {name: here[name] for name in layers if name in here}
        for part in here.values():
            part.requires_grad_(False)
        self._frozen = [name for name, part in here.items() if isinstance(part, nn.Module)]

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
            ValueError: If the file of the weights does not fit the model.
            FileNotFoundError: If there is no such file.
        """
        first = not self.is_init
        super().init_weights()
        if first and self.weights:
            self.load_trained()

    @abstractmethod
    def load_trained(self) -> None:
        """Load ``weights``; raises as :meth:`init_weights`."""
