"""The acceptance table: which ratios are required, and whether a run meets them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from .timing import BARE, FLOOR, MMDET, NO_LOADING, TORCHVISION, Case


class Requirement(NamedTuple):
    """A line of the acceptance table."""

    part: str  # of the benchmark
    cases: str  # a pattern for the names of the part's cases; the worst of them counts
    peer: str  # the contestant with which the plugin is compared
    at_least: float | None = None  # the smallest accepted ratio of the peer's time to ours
    at_most: float | None = None  # the largest accepted ratio of our time to the peer's
    device: str = 'cpu'
    amp: bool = False  # whether it is required only of a run with --amp


REQUIREMENTS = (
    Requirement('pipeline', '*', MMDET, at_least=8),
    Requirement('pipeline', '*', FLOOR, at_most=2.5),
    Requirement('loss', 'forward + backward, batch 32, *', MMDET, at_least=2.5),
    Requirement('loss', 'forward + backward, batch 32, *', TORCHVISION, at_least=1.3),
    *(
        Requirement('postprocess', f'batch {batch}, {scores} scores', peer, at_least=ratio)
        for batch in (8, 1)
        for scores in ('random', 'background-heavy', 'trained')
        for peer, ratio in ((MMDET, 5), (TORCHVISION, 4))
    ),
    Requirement('step', 'model alone, *', MMDET, at_least=4, amp=True),
    Requirement('step', 'model alone, *', BARE, at_most=1.1, amp=True),
    Requirement('loss', 'forward + backward, batch 32, *', MMDET, at_least=10, device='cuda'),
    Requirement('step', 'from files, *', MMDET, at_least=2, device='cuda'),
    # Training is bound by the GPU, not by the loader: hardly slower than on a batch in memory.
    Requirement('step', 'from files, *', NO_LOADING, at_most=1.1, device='cuda'),
)


def judge(cases: list[Case], device: str, amp: bool = False) -> list[dict]:
    """The lines of the table that these cases are measurements for, as dicts.

    Each has ``part``, ``cases``, ``peer``, what is ``wanted``, what was ``measured``, and the
    ``verdict``: met, missed, or that ``--amp`` is required.
    """
    verdicts = []
    for line in REQUIREMENTS:
        ratios = [
            case.ratio(line.peer)
            for case in cases
            if (case.part, line.device) == (line.part, device)
            and fnmatchcase(case.name, line.cases)
            and line.peer in case.samples
        ]
        if not ratios:
            continue
        measured, wanted = min(ratios), f'{line.peer} / ours >= {line.at_least}'
        met = line.at_least is not None and measured >= line.at_least
        if line.at_most is not None:
            measured, wanted = 1 / measured, f'ours / {line.peer} <= {line.at_most}'
            met = measured <= line.at_most
        verdict = 'asked for with --amp' if line.amp and not amp else 'met' if met else 'missed'
        result = dict(wanted=wanted, measured=measured, verdict=verdict)
        verdicts.append(dict(part=line.part, cases=line.cases, peer=line.peer, **result))
    return verdicts
