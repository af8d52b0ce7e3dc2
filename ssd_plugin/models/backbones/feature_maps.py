"""The feature maps inside a torchvision model: names, strides and channels, found by tracing it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

# Sides of two square inputs: a map's stride is how much the input grew over how much the map did.
# That is exact for convolutions without padding too, and leaves out pooling to a fixed size.
PROBE_SIDES = (256, 384)


class FeatureMap(NamedTuple):
    """A node of a model whose value is a map."""

    name: str  # the shortest that torchvision's feature extraction takes for it
    node: str  # the full one
    stride: int
    channels: int
    channels_last: bool  # whether it is (B, H, W, C)
    sole: bool  # whether the rest of the model sees nothing else of the image
    overwritten: bool  # in place, by a layer after it


class Survey(NamedTuple):
    """What there is in a model."""

    maps: dict[str, FeatureMap]  # by full name, in order of execution
    last: dict[str, str]  # the full name of the last node within each module, by its name

    def levels(self) -> dict[int, list[FeatureMap]]:
        """Maps that can stand for the whole model so far, by stride.

        Those inside a residual block, for instance, cannot: its end needs its beginning, too.
        """
        levels: dict[int, list[FeatureMap]] = {}
        for candidate in self.maps.values():
            if candidate.sole and not candidate.overwritten:
                levels.setdefault(candidate.stride, []).append(candidate)
        return dict(sorted(levels.items()))

    def at_strides(self, strides: Sequence[int]) -> list[FeatureMap]:
        """The last map of each level; a stride that there is none of is a ``ValueError``."""
        levels = self.levels()
        for stride in strides:
            if stride not in levels:
                raise ValueError(f'no feature map at stride {stride}; there are {[*levels]}')
        return [levels[stride][-1] for stride in strides]

    def named(self, names: Sequence[str]) -> list[FeatureMap]:
        """Maps by name; one that is no map, or not to be had, is a ``ValueError``."""
        for name in names:
            node = self.last.get(name)
            if node is None:
                maps = [found.name for level in self.levels().values() for found in level]
                raise ValueError(f'no node {name!r}, {alternatives(name, self.last, maps)}')
            if node not in self.maps:
                raise ValueError(f'node {name!r} is no feature map')
            if self.maps[node].overwritten:
                why = 'is overwritten in place by a layer after it, which can be used'
                raise ValueError(f'node {name!r} {why}')
        return [self.maps[self.last[name]] for name in names]


def survey(model: nn.Module) -> Survey:
    """Find the feature maps of a model of torchvision's, without computing any.

    Raises:
        ValueError: If the model takes images of one size only, as vision transformers do.
    """
    model = without_data(model).eval()
    train_names, names = get_graph_node_names(model, suppress_diff_warning=True)
    in_both = set(train_names) & set(names)
    names = [name for name in names if name in in_both]
    extractor = create_feature_extractor(model, names, suppress_diff_warning=True).eval()
    small, large = (record(extractor, side) for side in PROBE_SIDES)

    *nodes, output = extractor.graph.nodes
    name_of = {node: name for name, node in output.args[0].items()}
    # A module's name stands for its last node, in training and in evaluation.
    in_training = last_within(train_names)
    last = {module: n for module, n in last_within(names).items() if in_training[module] == n}
    # The shortest comes last, and stays.
    short = {last[module]: module for module in sorted(last, key=len, reverse=True)}
    sole = sole_nodes(nodes, small)
    maps = {}
    for node in nodes:
        value, version = small[node]
        layout = map_layout(value, large[node][0])
        if layout and node in name_of and node.op != 'placeholder':
            name = name_of[node]
            overwritten = value._version > version
            maps[name] = FeatureMap(short.get(name, name), name, *layout, node in sole, overwritten)
    return Survey(maps, last)


def alternatives(name: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """What there is in place of ``name``: those ``known`` that are like it, or all of a list."""
    close = get_close_matches(name, known, n=6)
    if close:
        return f'closest: {", ".join(close)}'
    return f'there are: {", ".join(known if listed is None else listed)}'


def without_data(model: nn.Module) -> nn.Module:
    """A copy of a model on the meta device: shapes without numbers. It takes no memory."""
    memo: dict[int, Any] = {id(tensor): tensor.to('meta') for tensor in model.buffers()}
    memo.update((id(tensor), nn.Parameter(tensor.to('meta'))) for tensor in model.parameters())
    return copy.deepcopy(model, memo)


def record(module: fx.GraphModule, side: int) -> dict[fx.Node, tuple[Any, int | None]]:
    """Each node's value for a square image, and its version then: later ones are overwritten."""
    values = {}

    class Recorder(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            value = super().run_node(node)
            values[node] = value, value._version if isinstance(value, Tensor) else None
            return value

    with torch.no_grad(), torch.device('meta'):
        try:
            Recorder(module).run(torch.empty(1, 3, side, side))
        except (AssertionError, RuntimeError) as error:
            message = 'a backbone must take images of any size, and this model does not take one of'
            raise ValueError(f'{message} {side} x {side} pixels') from error
    return values


def map_layout(small: Any, large: Any) -> tuple[int, int, bool] | None:
    """Stride, channels and whether they are last, from a map at both probes; None if it is none."""
    if not isinstance(small, Tensor) or small.dim() != 4:
        return None
    growth = [b - a for a, b in zip(small.shape, large.shape)]
    grown = growth[2]  # rows if channels come first, columns if they come last
    step = PROBE_SIDES[1] - PROBE_SIDES[0]
    channels_last = growth == [0, grown, grown, 0]
    if grown <= 0 or step % grown or not (channels_last or growth == [0, 0, grown, grown]):
        return None
    return step // grown, small.shape[3 if channels_last else 1], channels_last


def sole_nodes(nodes: Sequence[fx.Node], values: dict[fx.Node, tuple]) -> set[fx.Node]:
    """Nodes after which no earlier value is used any more, but for parameters and numbers."""
    order = {node: i for i, node in enumerate(nodes)}
    from_image: set[fx.Node] = set()
    sole: set[fx.Node] = set()
    last_use = 0
    for i, node in enumerate(nodes):
        derived = node.op == 'placeholder' or not from_image.isdisjoint(node.all_input_nodes)
        if derived and holds_tensor(values[node][0]):
            from_image.add(node)
            if last_use <= i:
                sole.add(node)
            # The output is not in `order`: it uses every node.
            last_use = max([last_use, *(order[user] for user in node.users if user in order)])
    return sole


def holds_tensor(value: Any) -> bool:
    """Whether it is a tensor, or a list or tuple of some."""
    sequence = isinstance(value, (list, tuple))
    return any(map(holds_tensor, value)) if sequence else isinstance(value, Tensor)


def last_within(names: Iterable[str]) -> dict[str, str]:
    """The last node within each module: ``{'layer1': 'layer1.1.relu', 'layer1.1': ...}``."""
    last: dict[str, str] = {}
    for name in names:
        parts = name.split('.')
        last.update(('.'.join(parts[: i + 1]), name) for i in range(len(parts)))
    return last
