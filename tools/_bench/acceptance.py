"""What the figures have to be, and whether those of a run are."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from .timing import BARE, FLOOR, MMDET, NO_LOADING, TORCHVISION, Case


@dataclass(frozen=True)
class Wanted:
    """A line of the acceptance table.

    Args:
        device: On which it is asked for.
        part: Of the benchmark.
        cases: Which of the part's cases, as a pattern; the worst of them counts.
        peer: Beside whom.
        at_least: The peer's time over ours; or
        at_most: our time over the peer's.
        amp: Whether it is asked for with ``--amp``.
    """

    device: str
    part: str
    cases: str
    peer: str
    at_least: float | None = None
    at_most: float | None = None
    amp: bool = False


WANTED = (
    Wanted('cpu', 'pipeline', '*', MMDET, at_least=8),
    Wanted('cpu', 'pipeline', '*', FLOOR, at_most=2.5),
    Wanted('cpu', 'loss', 'forward + backward, batch 32, *', MMDET, at_least=2.5),
    Wanted('cpu', 'loss', 'forward + backward, batch 32, *', TORCHVISION, at_least=1.3),
    Wanted('cpu', 'postprocess', 'batch 8, random scores', MMDET, at_least=5),
    Wanted('cpu', 'postprocess', 'batch 8, random scores', TORCHVISION, at_least=4),
    Wanted('cpu', 'postprocess', 'batch 8, background-heavy scores', MMDET, at_least=5),
    Wanted('cpu', 'postprocess', 'batch 8, background-heavy scores', TORCHVISION, at_least=4),
    Wanted('cpu', 'postprocess', 'batch 8, trained scores', MMDET, at_least=5),
    Wanted('cpu', 'postprocess', 'batch 8, trained scores', TORCHVISION, at_least=4),
    Wanted('cpu', 'postprocess', 'batch 1, random scores', MMDET, at_least=5),
    Wanted('cpu', 'postprocess', 'batch 1, random scores', TORCHVISION, at_least=4),
    Wanted('cpu', 'postprocess', 'batch 1, background-heavy scores', MMDET, at_least=5),
    Wanted('cpu', 'postprocess', 'batch 1, background-heavy scores', TORCHVISION, at_least=4),
    Wanted('cpu', 'postprocess', 'batch 1, trained scores', MMDET, at_least=5),
    Wanted('cpu', 'postprocess', 'batch 1, trained scores', TORCHVISION, at_least=4),
    Wanted('cpu', 'step', 'model alone, *', MMDET, at_least=4, amp=True),
    Wanted('cpu', 'step', 'model alone, *', BARE, at_most=1.1, amp=True),
    Wanted('cuda', 'loss', 'forward + backward, batch 32, *', MMDET, at_least=10),
    Wanted('cuda', 'step', 'from files, *', MMDET, at_least=2),
    # Bound by the GPU, not by the loader: all but as fast as on a batch in memory.
    Wanted('cuda', 'step', 'from files, *', NO_LOADING, at_most=1.1),
)


@dataclass(frozen=True)
class Verdict:
    """A line of the table with what a run measured."""

    part: str
    cases: str
    peer: str
    wanted: str
    measured: float
    verdict: str  # met, missed, or why it can't be said


def judge(cases: list[Case], device: str, amp: bool = False) -> list[Verdict]:
    """The lines of the table that these cases are measurements for."""
    verdicts = []
    for line in WANTED:
        ratios = [
            case.ratio(line.peer)
            for case in cases
            if case.part == line.part
            and fnmatchcase(case.name, line.cases)
            and line.peer in case.samples
        ]
        if line.device != device or not ratios:
            continue
        if line.at_least is not None:
            measured, wanted = min(ratios), f'{line.peer} / ours >= {line.at_least:g}'
            met = measured >= line.at_least
        else:
            measured, wanted = 1 / min(ratios), f'ours / {line.peer} <= {line.at_most:g}'
            met = measured <= line.at_most
        verdict = 'met' if met else 'missed'
        if line.amp and not amp:
            verdict = 'asked for with --amp'
        verdicts.append(Verdict(line.part, line.cases, line.peer, wanted, measured, verdict))
    return verdicts
