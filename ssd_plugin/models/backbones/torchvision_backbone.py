"""Any torchvision classification model as a backbone of MMDetection's detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.models.feature_extraction import create_feature_extractor

from ssd_plugin.errors import CheckpointError, one_line
from ssd_plugin.models.backbones.classifier_backbone import (
    ClassifierBackbone,
    parameters_behind,
)
from ssd_plugin.models.backbones.feature_maps import (
    PROBE_SIDES,
    Survey,
    alternatives,
    survey,
    without_data,
)

SURVEYS: dict[str, Survey] = {}  # by what a model is built from


@MODELS.register_module()
class TorchvisionBackbone(ClassifierBackbone):
    """A classification model of torchvision's, by name, up to the feature maps that are asked for.

    1. Build the model and find its feature maps, their strides and channels.
    2. Choose those that ``nodes`` or ``strides`` name, and drop the layers that they don't need.
    3. Freeze what is to be frozen. ``init_weights`` loads ``weights``: a detector that is built
       to load a checkpoint needs no file.

    Parameters and buffers have the names that they have in torchvision's model.
    ``python -m ssd_plugin.models.backbones NAME`` prints a model's feature maps and preprocessing.

    Args:
        name: Name of the model, as ``torchvision.models.list_models`` lists it. Vision
            transformers that take images of one size (ViT, MaxViT) can't be used.
        nodes: Feature maps by the names of ``torchvision.models.feature_extraction``. A module's
            name stands for its last node.
        strides: Feature maps by stride: at each, the last one that all later layers see the
            image through. Where a model expands channels before it halves the size, as MobileNet
            does, that is after the expansion, as in SSDLite. Either ``nodes`` or ``strides``.
        weights: What to start from: ``'DEFAULT'`` or another of torchvision's weights by name,
            such as ``'IMAGENET1K_V2'``, or a file, known by its suffix, with a state dict of the
            torchvision model.
        frozen_stages: As in MMDetection's ResNet and Swin. Stage k is at stride 2^(k + 1), and all
            layers that the map is computed from that ``strides`` would give there are frozen: their
            parameters don't learn, and in training they stay in evaluation mode. 0 is a ResNet's
            stem; -1 freezes nothing.
        norm_eval: Whether batch normalisation stays in evaluation mode in training.
        norm_cfg: Normalisation layers, where the model lets choose them, such as
            ``dict(type='BN', eps=1e-3, momentum=0.03)``. MMEngine's ``sync_bn='torch'`` in a config
            has it synchronise between processes.
        model_args: More arguments for torchvision's builder, such as ``dict(reduced_tail=True)``.
        init_cfg: Initialisation; ``dict(type='Pretrained', checkpoint=FILE)`` is ``weights=FILE``,
            whatever ``weights`` is. No other goes together with it.

    Attributes:
        out_channels: Channels of each map.
        out_strides: Stride of each map in pixels.
        preprocessing: ``mean``, ``std`` and ``bgr_to_rgb`` that the weights (without any, the
            default ones) ask for, as ``DetDataPreprocessor`` takes them.

    Raises:
        ValueError: If there is no such model, node, stride, stage or weights, or arguments exclude
            each other.
        TypeError: If the model does not take ``norm_cfg`` or ``model_args``.
    """

    def __init__(
        self,
        name: str,
        nodes: Sequence[str] | None = None,
        strides: Sequence[int] | None = None,
        weights: str | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: dict | None = None,
        model_args: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(name, weights, norm_eval, init_cfg)
        if (nodes is None) == (strides is None):
            raise ValueError('TorchvisionBackbone takes either nodes or strides')
        self.model_args = dict(model_args or {})
        if norm_cfg and 'SyncBN' in norm_cfg['type']:
            remedy = "norm_cfg=dict(type='BN'), and sync_bn='torch' at the top of the config"
            raise ValueError(f'TorchvisionBackbone can not trace SyncBN: write {remedy}')
        if norm_cfg:
            self.model_args['norm_layer'] = lambda channels: build_norm_layer(norm_cfg, channels)[1]

        known, chosen = known_weights(name), str(self.weights)
        self._known_weights = known.get(chosen)
        is_file = '://' in chosen or Path(chosen).suffix
        if self.weights and not self._known_weights and not is_file:
            raise ValueError(f'{name} has no weights {chosen!r}, {alternatives(chosen, known)}')
        self.preprocessing = preprocessing(self._known_weights or known['DEFAULT'])

        model = self.build_model()
        # Tracing takes a second, and a command builds a detector several times.
        built_from = repr((name, norm_cfg, model_args))
        found = SURVEYS.get(built_from) or SURVEYS.setdefault(built_from, survey(model))
        maps = found.at_strides(strides or ()) if nodes is None else found.named(nodes)
        self.out_channels = tuple(chosen.channels for chosen in maps)
        self.out_strides = tuple(chosen.stride for chosen in maps)
        self._maps = [(chosen.node, chosen.channels_last) for chosen in maps]
        self._take_layers(model)
        if frozen_stages != -1:
            self.freeze(self._parameters_up_to(frozen_stages, found, model))
        self.train()

    def build_model(self, weights: WeightsEnum | None = None) -> nn.Module:
        """The whole model that this is a part of, with random or torchvision's weights."""
        try:
            model = get_model(self.name, weights=weights, **self.model_args)
        except TypeError as error:
            what = f'{self.name} with norm_cfg (its norm_layer) and model_args as given'
            raise TypeError(f'torchvision builds no {what}: {error}') from error
        if hasattr(model, 'transform_input') and self._known_weights:
            # torchvision's Inception models then scale the image as the weights ask for.
            model.transform_input = True
        return model

    def _take_layers(self, model: nn.Module) -> None:
        """Make the layers that compute the maps this module's own, under the same names.

        torchvision's extractor has two programs, one for training and one for evaluation; they
        are functions of a module with those layers, which is this one.
        """
        nodes = [node for node, _ in self._maps]
        extractor = create_feature_extractor(model, nodes, suppress_diff_warning=True)
        self._forwards = {mode: type(extractor.train(mode)).forward for mode in (True, False)}
        self._modules.update(extractor._modules)
        self._parameters.update(extractor._parameters)
        self._buffers.update(extractor._buffers)
        self._dropped = model.state_dict().keys() - self.state_dict().keys()

    def _parameters_up_to(self, stages: int, found: Survey, model: nn.Module) -> set[str]:
        """Names of the parameters that the last map at a stage's stride is computed from."""
        levels, stride = found.levels(), 2 ** (stages + 1)
        if stride not in levels:
            where = f'but the feature maps of {self.name} are at {[*levels]}'
            raise ValueError(f'frozen_stages={stages} is up to stride {stride}, {where}')
        node = levels[stride][-1].node
        model = create_feature_extractor(without_data(model).eval(), [node])
        maps = model(torch.empty(1, 3, *_pair(PROBE_SIDES[0]), device='meta'))
        return parameters_behind(maps[node], model)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (B, out_channels_k, H_k, W_k) of images (B, 3, H, W)."""
        maps = self._forwards[self.training](self, x)
        return tuple(
            maps[node].permute(0, 3, 1, 2) if channels_last else maps[node]
            for node, channels_last in self._maps
        )

    def address(self) -> str | None:
        """Where torchvision's weights of this name are."""
        return self._known_weights and self._known_weights.url

    def download(self) -> None:
        """Load torchvision's weights."""
        self._load(self.build_model(self._known_weights).state_dict())

    def load_file(self, path: str) -> None:
        """Load a file of the whole torchvision model."""
        if '://' not in path and not Path(path).is_file():
            names = ', '.join(known_weights(self.name))
            whose = f"the names of torchvision's weights of {self.name}"
            raise CheckpointError(f'no file {path}; {whose} are {names}')
        try:
            problem = self._load(CheckpointLoader.load_checkpoint(path, 'cpu'))
        except CheckpointError:
            raise
        except Exception as error:  # for what is no checkpoint, PyTorch raises nearly anything
            problem = one_line(error)
        if problem:
            raise CheckpointError(f'{path} is not the weights of {self.name}: {problem}')

    def _load(self, state: Any) -> str:
        """Load a state dict of the whole model; what does not fit in it, '' if all does."""
        if not isinstance(state, Mapping):
            return f'it holds a {type(state).__name__}'
        state = state.get('state_dict', state)
        own = self.state_dict()
        for key, value in state.items():
            if key not in own and key not in self._dropped:
                return f'unexpected {key!r}'
            if key in own and value.shape != own[key].shape:
                return f'{key!r} is {tuple(value.shape)}, should be {tuple(own[key].shape)}'
        needed = {key: value for key, value in state.items() if key in own}
        missing = self.load_state_dict(needed, strict=False).missing_keys
        return f'{missing[0]!r} is missing' if missing else ''


def known_weights(name: str) -> Mapping[str, WeightsEnum]:
    """torchvision's weights of a classification model, by name; ``DEFAULT`` is one of the others.

    Raises:
        ValueError: If there is no such model.
    """
    names = list_models(module=torchvision.models)
    if name not in names:
        close = alternatives(name, names)
        raise ValueError(f'torchvision has no classification model {name!r}, {close}')
    return get_model_weights(name).__members__


def preprocessing(weights: WeightsEnum) -> dict:
    """``mean``, ``std`` and ``bgr_to_rgb`` for weights, in grey levels from 0 to 255."""
    chosen = weights.transforms()
    mean, std = ([round(255 * x, 3) for x in values] for values in (chosen.mean, chosen.std))
    return dict(mean=mean, std=std, bgr_to_rgb=True)
