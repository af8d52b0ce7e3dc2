"""What was measured, as a bar chart."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import number
from .timing import BARE, FLOOR, MMDET, NO_LOADING, OURS, TORCHVISION, Case

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = {
    OURS: '#0072B2',
    MMDET: '#E69F00',
    TORCHVISION: '#009E73',
    FLOOR: '#999999',
    BARE: '#999999',
    NO_LOADING: '#56B4E9',
}
BAR, GAP, MARGIN = 0.26, 0.3, 1.0  # heights, in inches


def save_plot(path: Path, cases: list[Case], environment: dict[str, str]) -> None:
    """Draw the medians: a panel for each part, a group of bars for each case."""
    parts = {}
    for case in cases:
        parts.setdefault(case.part, []).append(case)
    heights = [sum(_height(case) for case in members) for members in parts.values()]
    figure = Figure(figsize=(11, sum(heights) + MARGIN * (len(parts) + 0.4)), layout='constrained')
    panels = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for panel, (part, members) in zip(panels, parts.items()):
        _draw_part(panel, part, members)
    threads = 'GPU' if 'CUDA, cuDNN' in environment else f'{environment["threads"]} threads'
    figure.suptitle(
        f'Time in multiples of ours, on {environment["device"]} ({threads}); shorter is better',
        fontsize=13,
        x=0.01,
        ha='left',
    )
    figure.savefig(path, dpi=110)


def _height(case: Case) -> float:
    return BAR * len(case.samples) + GAP


def _draw_part(panel: Axes, part: str, cases: list[Case]) -> None:
    """Bars from the top down; each says how many times ours it is, and its time."""
    top, centers = 0.0, []
    for case in cases:
        ours = case.median(OURS)
        centers.append(top + BAR * len(case.samples) / 2)
        for contestant in case.samples:
            median, spread = case.median(contestant), case.spread(contestant)
            y = top + BAR / 2
            panel.barh(
                y,
                median / ours,
                height=0.9 * BAR,
                color=COLORS[contestant],
                label=contestant,
                xerr=[[(median - spread['q1']) / ours], [(spread['q3'] - median) / ours]],
                error_kw=dict(ecolor='#444444', elinewidth=1, capsize=2),
            )
            ratio = '' if contestant == OURS else f'{number(median / ours)} x   '
            text = f'  {ratio}{number(1000 * median)} ms'
            weight = 'bold' if contestant == OURS else 'normal'
            x = spread['q3'] / ours
            panel.text(x, y, text, va='center', fontsize=10, fontweight=weight)
            top += BAR
        top += GAP
    _dress(panel, part, cases, centers, bottom=top - GAP / 2)


def _dress(panel: Axes, part: str, cases: list[Case], centers: list, bottom: float) -> None:
    """Title, axes and legend of a panel."""
    longest = max(c.spread(who)['q3'] / c.median(OURS) for c in cases for who in c.samples)
    panel.set_title(part, loc='left', fontsize=13, fontweight='bold')
    panel.set_yticks(centers, [case.name.replace(', ', '\n') for case in cases], fontsize=10)
    panel.set_ylim(bottom, -GAP / 2)
    panel.set_xlim(0, 1.2 * longest)  # to the right, room for the numbers
    panel.grid(axis='x', color='#dddddd')
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)
    label = f'times ours; in numbers, milliseconds a {cases[0].unit} (median, quartiles)'
    panel.set_xlabel(label, fontsize=10)
    handles, labels = panel.get_legend_handles_labels()
    legend = dict(zip(labels, handles))
    panel.legend(
        legend.values(),
        legend.keys(),
        loc='lower right',
        bbox_to_anchor=(1, 1),
        ncols=len(legend),
        frameon=False,
        fontsize=10,
        borderaxespad=0.2,
    )
