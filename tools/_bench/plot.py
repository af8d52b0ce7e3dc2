"""What was measured, as a bar chart."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.visualization import style

from .report import number
from .timing import BARE, FLOOR, MMDET, NO_LOADING, OURS, TORCHVISION, Case

COLORS = {OURS: style.BLUE, MMDET: style.ORANGE, TORCHVISION: style.GREEN}
COLORS |= {FLOOR: '#999999', BARE: '#999999', NO_LOADING: style.SKY}
OTHERS = style.PALETTE  # of models of the user's and stages, in their order
BAR, GAP, MARGIN = 0.26, 0.3, 1.0  # heights, in inches


def save_plot(path: Path, cases: list[Case], environment: dict[str, str]) -> None:
    """Draw the medians: a panel for each part, a group of bars for each case."""
    parts = {part: list(members) for part, members in groupby(cases, attrgetter('part'))}
    heights = [sum(BAR * len(c.samples) + GAP for c in members) for members in parts.values()]
    figure = Figure(figsize=(11, sum(heights) + MARGIN * (len(parts) + 0.4)), layout='constrained')
    panels = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for panel, (part, members) in zip(panels, parts.items()):
        draw_part(panel, part, members)
    threads = 'GPU' if 'CUDA, cuDNN' in environment else f'{environment["threads"]} threads'
    where = f'on {environment["device"]} ({threads})'
    title = f'Time in multiples of {base_of(cases)}, {where}; shorter is better'
    figure.suptitle(title, fontsize=13, x=0.01, ha='left')
    figure.savefig(path, dpi=110)


def draw_part(panel: Axes, part: str, cases: list[Case]) -> None:
    """Bars from the top down, each with its ratio to ours and its time in milliseconds."""
    y, longest, centers, legend = 0.0, 0.0, [], {}
    for case in cases:
        ours = case.median(case.base)
        centers.append(y + BAR * (len(case.samples) - 1) / 2)
        for position, who in enumerate(case.samples):
            median, spread = case.median(who), case.spread(who)
            low, ratio, high = spread['q1'] / ours, median / ours, spread['q3'] / ours
            legend[who] = panel.barh(
                y, ratio, height=0.9 * BAR, color=COLORS.get(who, OTHERS[position % len(OTHERS)]),
                xerr=[[ratio - low], [high - ratio]],
                error_kw=dict(ecolor='#444444', elinewidth=1, capsize=2),
            )  # fmt: skip
            text = '' if who == case.base else f'{number(ratio)} x   '
            text, weight = (
                f'  {text}{number(1000 * median)} ms',
                'bold' if who == case.base else 'normal',
            )
            panel.text(high, y, text, va='center', fontsize=10, fontweight=weight)
            longest = max(longest, high)
            y += BAR
        y += GAP
    panel.set_title(part, loc='left', fontsize=13, fontweight='bold')
    panel.set_yticks(centers, [case.name.replace(', ', '\n') for case in cases], fontsize=10)
    panel.set_ylim(y - GAP / 2, -(BAR + GAP) / 2)
    panel.set_xlim(0, 1.2 * longest)  # leaves room for the numbers on the right
    panel.grid(axis='x', color='#dddddd')
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)
    unit = f'milliseconds per {cases[0].unit} (median, quartiles)'
    text = f'bars: multiples of {base_of(cases)}; numbers: {unit}'
    panel.set_xlabel(text, fontsize=10)
    place: dict = dict(loc='lower right', bbox_to_anchor=(1, 1), borderaxespad=0.2, frameon=False)
    panel.legend(list(legend.values()), list(legend), ncols=len(legend), fontsize=10, **place)


def base_of(cases: list[Case]) -> str:
    """What the bars of a group are multiples of."""
    return 'ours' if all(case.base == OURS for case in cases) else 'the first of each group'
