"""Checkpoints for tests: weights in another implementation's layout, and files that run code."""

import torch

from ssd_plugin.checkpoints.layouts import LAYOUTS, Layout
from ssd_plugin.checkpoints.scores import CLASS_LAYER

# The argument of a backbone that names the weights it starts from, which would be downloaded.
TRAINED = dict(TorchvisionBackbone='weights', TimmBackbone='pretrained')


class Payload:
    """Makes an empty file of a name when a pickle of it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


def load(path):
    return torch.load(path, map_location='cpu')


def assert_same(one, other, tolerance=0):
    """Equal nested states, bit by bit or with tensors that differ by no more than a tolerance."""
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], tolerance)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            assert_same(left, right, tolerance)
    else:
        assert one == other


def layout_of(source: str, architecture: str = 'SSD300') -> Layout:
    (layout,) = (x for x in LAYOUTS if (x.source, x.architecture) == (source, architecture))
    return layout


def random_state(layout, num_scores):
    """Weights of its layout's shapes; those of the class layers are random, the others 0."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for theirs, (ours, shape) in layout.parameters(num_scores).items():
        is_random = CLASS_LAYER.fullmatch(ours)
        state[theirs] = (
            torch.randn(shape, generator=generator) if is_random else torch.zeros(()).expand(shape)
        )
    return state


def assert_same_detections(ours, theirs, most=1e-3, num_classes=3):
    """Each detection has one with the same label, score and box (in pixels) on the other side.

    Both are (boxes (n, 4), scores (n,), labels (n,)), of at least so many classes.
    """
    (boxes, scores, labels), (their_boxes, their_scores, their_labels) = ours, theirs
    assert len(scores) == len(their_scores) > 20
    assert len(labels.unique()) >= num_classes
    differ = (boxes[:, None] - their_boxes).abs().amax(dim=2)
    differ = differ.maximum((scores[:, None] - their_scores).abs())
    differ[labels[:, None] != their_labels] = torch.inf
    assert differ.amin(dim=0).max() < most
    assert differ.amin(dim=1).max() < most
