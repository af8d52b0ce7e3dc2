"""Any timm model with feature maps as a backbone of MMDetection's detectors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from os.path import isfile
from types import ModuleType
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor
from torch.nn.modules.utils import _pair

from ssd_plugin.errors import CheckpointError, MissingPackageError, one_line
from ssd_plugin.models.backbones.classifier_backbone import (
    ClassifierBackbone,
    parameters_behind,
)
from ssd_plugin.models.backbones.feature_maps import PROBE_SIDES, alternatives


@MODELS.register_module()
class TimmBackbone(ClassifierBackbone):
    """A model of timm's, by name, up to the feature maps that are asked for.

    timm finds the maps (``features_only``), their strides and channels, and converts and loads
    its weights. The model is ``model`` here, with timm's names in it.

    Args:
        name: Name of the model, as ``timm.list_models`` lists it. Its weights may be named, too:
            ``'resnet50.a1_in1k'``.
        out_indices: Feature maps by their number, from 0 at the first that timm gives.
        strides: Feature maps by stride: at each, the last one. Either ``out_indices`` or
            ``strides``.
        pretrained: Whether to start from timm's weights, which are downloaded; or a file with a
            state dict of the whole timm model.
        frozen_stages: As in MMDetection's ResNet and Swin: stage k is at stride 2^(k + 1), and all
            layers that the last map there is computed from are frozen. -1 freezes nothing.
        norm_eval: Whether batch normalisation stays in evaluation mode in training.
        drop_path_rate: Share of residual branches that training drops, in the last block; it
            rises linearly to it. None is timm's default for the model.
        model_args: More arguments for ``timm.create_model``, such as
            ``dict(feature_location='expansion')`` for the maps that SSDLite takes.
        init_cfg: Initialisation; ``dict(type='Pretrained', checkpoint=FILE)`` is
            ``pretrained=FILE``, whatever ``pretrained`` is. No other goes together with it.

    Attributes:
        out_channels, out_strides, preprocessing: See :class:`ClassifierBackbone`.

    Raises:
        MissingPackageError: If timm is not installed.
        ValueError: If there is no such model, map or stride, or arguments exclude each other.
        TypeError: If the model does not take ``drop_path_rate`` or ``model_args``.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        pretrained: bool | str = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float | None = None,
        model_args: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(name, pretrained, norm_eval, init_cfg)
        if (out_indices is None) == (strides is None):
            raise ValueError('TimmBackbone takes either out_indices or strides')
        known_models = timm().list_models() + timm().list_models(pretrained=True)
        if name not in known_models:
            raise ValueError(f'timm has no model {name!r}, {alternatives(name, known_models)}')
        self.model_args = dict(dict(drop_path_rate=drop_path_rate), **model_args or {})
        with torch.device('meta'):  # shapes without numbers
            known = self.build().feature_info.info  # of all maps, in order
        known_strides = [entry['reduction'] for entry in known]
        self._indices = choose_maps(name, known_strides, out_indices, strides)
        self.model = self.build(out_indices=tuple(sorted(self._indices)))
        self.out_channels = tuple(known[index]['num_chs'] for index in self._indices)
        self.out_strides = tuple(known_strides[index] for index in self._indices)
        self.preprocessing = preprocessing(self.model.pretrained_cfg)
        self._channels_last = getattr(self.model, 'output_fmt', None) == 'NHWC'
        if frozen_stages != -1:
            self.freeze(self._parameters_up_to(frozen_stages, known_strides))
        self.train()

    def build(self, **arguments: Any) -> Any:
        """timm's extractor of feature maps, with random weights unless told otherwise."""
        try:
            return timm().create_model(
                self.name, features_only=True, exportable=True, **self.model_args, **arguments
            )
        except TypeError as error:
            what = f'{self.name} with drop_path_rate and model_args as given'
            raise TypeError(f'timm builds no {what}: {error}') from error

    def _parameters_up_to(self, stages: int, known_strides: Sequence[int]) -> set[str]:
        """Names of the parameters that the last map at a stage's stride is computed from."""
        stride = 2 ** (stages + 1)
        last = choose_maps(self.name, known_strides, None, [stride])[0]
        with torch.device('meta'):
            model = self.build(out_indices=tuple(range(len(known_strides)))).eval()
            cfg, side = model.pretrained_cfg, PROBE_SIDES[0]
            if cfg.get('fixed_input_size'):
                side = self.model_args.get('img_size', cfg['input_size'][-1])
            maps = model(torch.empty(1, 3, *_pair(side)))
        behind, *later = (parameters_behind(value, model) for value in maps[last:])
        if not all(behind <= others for others in later):
            why = f'{self.name} computes its map at stride {stride} beside the later ones'
            raise ValueError(f'frozen_stages={stages} is not to be had: {why}')
        return {f'model.{name}' for name in behind}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (B, out_channels_k, H_k, W_k) of images (B, 3, H, W)."""
        # timm returns them in the order of its layers.
        maps = dict(zip(sorted(self._indices), self.model(x), strict=True))
        chosen = [maps[index] for index in self._indices]
        return tuple(
            value.permute(0, 3, 1, 2) if self._channels_last else value for value in chosen
        )

    def address(self) -> str | None:
        """timm's page of the weights, if they are timm's."""
        if self.weights is not True:
            return None
        cfg = self.model.pretrained_cfg
        return f'https://huggingface.co/{cfg["hf_hub_id"]}' if 'hf_hub_id' in cfg else cfg['url']

    def download(self) -> None:
        """Load timm's weights."""
        self._load({})

    def load_file(self, path: str) -> None:
        """Load a file of the whole timm model, but for the classifier.

        It goes into the whole model first, which tells what does not fit; an extractor ignores it.
        """
        if not isfile(path):
            raise CheckpointError(f'no file {path}, for the weights of {self.name}')
        try:
            state = timm().models.load_state_dict(path)
            classifier = timm().get_pretrained_cfg(self.name).classifier or ()
            for name in (classifier,) if isinstance(classifier, str) else classifier:
                state = {key: state[key] for key in state if not key.startswith(f'{name}.')}
            overlay = dict(state_dict=state, num_classes=0, label_offset=0)
            whole = dict(num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay)
            own = {k: v for k, v in self.model_args.items() if not k.startswith('feature_')}
            timm().create_model(self.name, **own, **whole)  # the others are the extractor's
        except Exception as error:  # PyTorch and timm's converters raise nearly anything
            reason = one_line(error)
            raise CheckpointError(f'{path} is not the weights of {self.name}: {reason}') from error
        self._load(overlay)

    def _load(self, overlay: dict) -> None:
        """Load what timm loads, into an extractor that it has just made, with ``overlay``."""
        trained = self.build(
            out_indices=tuple(sorted(self._indices)),
            pretrained=True,
            pretrained_cfg_overlay=overlay,
        )
        self.model.load_state_dict(trained.state_dict())


def choose_maps(
    name: str,
    known: Sequence[int],
    out_indices: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> tuple[int, ...]:
    """The numbers of the maps that are asked for, of those of all strides that are ``known``."""
    if strides is None:
        wrong = [index for index in out_indices or () if not 0 <= index < len(known)]
        what = 'index'
    else:
        wrong = [stride for stride in strides if stride not in known]
        what = 'stride'
        last = {stride: index for index, stride in enumerate(known)}
        out_indices = [last[stride] for stride in strides if stride in last]
    if wrong:
        maps = ', '.join(f'{index} at stride {stride}' for index, stride in enumerate(known))
        raise ValueError(f'{name} has no feature map of {what} {wrong[0]}; there are {maps}')
    return tuple(out_indices or ())


def preprocessing(pretrained_cfg: Mapping) -> dict:
    """``mean``, ``std`` and ``bgr_to_rgb`` for timm's weights, in grey levels from 0 to 255."""
    mean, std = ([round(255 * x, 3) for x in pretrained_cfg[key]] for key in ('mean', 'std'))
    return dict(mean=mean, std=std, bgr_to_rgb=True)


def timm() -> ModuleType:
    """The package timm, which is an extra and takes a second to import.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        return importlib.import_module('timm')
    except ImportError as error:
        remedy = "pip install 'ssd-plugin[timm]'"
        raise MissingPackageError(f'TimmBackbone needs the package timm: {remedy}') from error
