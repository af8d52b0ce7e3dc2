"""The arguments of ``SSDPriorGenerator`` that are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_plugin.models.priors import SSDPriorGenerator


class PriorArgs(NamedTuple):
    """Arguments of ``SSDPriorGenerator``, one of each a level."""

    min_sizes: list[float]  # in pixels of the network input
    max_sizes: list[float]
    ratios: list[list[float]]

    @classmethod
    def of(cls, generator: SSDPriorGenerator) -> PriorArgs:
        """Those of a generator, which may have been given ``basesize_ratio_range``."""
        ratios = [list(level) for level in generator.ratios]
        return cls(list(generator.min_sizes), list(generator.max_sizes), ratios)

    def put_into(self, generator: SSDPriorGenerator) -> SSDPriorGenerator:
        """A generator like the given one, with these arguments."""
        kept = ('strides', 'input_size', 'center_offset', 'clip', 'clip_sides')
        return SSDPriorGenerator(
            **self._asdict(), **{name: getattr(generator, name) for name in kept}
        )

    def rounded(self) -> PriorArgs:
        """As a person would write them: tenths of pixels, hundredths of ratios."""
        return PriorArgs(
            [round(float(size), 1) for size in self.min_sizes],
            [round(float(size), 1) for size in self.max_sizes],
            [sorted(round(float(ratio), 2) for ratio in level) for level in self.ratios],
        )

    def to_logs(self) -> list[np.ndarray]:
        """For each level (2 + R,): logarithms of min size, of max over min size, of ratios.

        A ratio below 1 stands for the same two priors as its inverse, which is taken.
        """
        return [
            np.concatenate([np.log([m, M / m]), np.abs(np.log(ratios))])
            for m, M, ratios in zip(*self, strict=True)
        ]

    @classmethod
    def from_logs(cls, logs: Sequence[np.ndarray]) -> PriorArgs:
        """The inverse of :meth:`to_logs`."""
        levels = [np.exp(level) for level in logs]
        return cls(
            [level[0] for level in levels],
            [level[0] * level[1] for level in levels],
            [list(level[2:]) for level in levels],
        )
