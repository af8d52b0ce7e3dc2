"""What was measured, as tables on the screen and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from .acceptance import Verdict
from .timing import OURS, Case

# Of the tables: name and width.
COLUMNS = {'median': 7, 'quartiles': 13, 'min - max': 13, 'a second': 8, 'times ours': 10}


def print_environment(console: Console, environment: dict[str, str]) -> None:
    """Print on what will be measured."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in environment.items():
        table.add_row(name, value)
    console.print(table)


def print_part(console: Console, part: str, cases: list[Case]) -> None:
    """Print the times of a part's contestants, and how many times ours each takes."""
    rounds = len(cases[0].samples[OURS])
    console.print(f'\n[bold]{part}[/]: milliseconds a {cases[0].unit}, {rounds} rounds')
    for case in cases:
        console.print(_table(case), _facts(case), sep='')


def _table(case: Case) -> Table:
    """A row for each contestant; columns as wide in each case."""
    table = Table(title=case.name, title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('contestant', min_width=26)
    for column, width in COLUMNS.items():
        table.add_column(column, justify='right', min_width=width, no_wrap=True)
    for contestant in case.samples:
        spread = {name: number(1000 * value) for name, value in case.spread(contestant).items()}
        table.add_row(
            contestant,
            number(1000 * case.median(contestant)),
            f'{spread["q1"]} - {spread["q3"]}',
            f'{spread["min"]} - {spread["max"]}',
            number(1 / case.median(contestant)),
            '' if contestant == OURS else f'{number(case.ratio(contestant))} x',
        )
    return table


def _facts(case: Case) -> str:
    return '[dim]' + ', '.join(f'{name} {value}' for name, value in case.facts.items()) + '[/]'


def print_verdicts(console: Console, verdicts: list[Verdict]) -> None:
    """Print the acceptance table."""
    table = Table(title='acceptance', title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ('part', 'case (the worst of them)', 'wanted'):
        table.add_column(column)
    table.add_column('measured', justify='right')
    table.add_column('verdict')
    styles = dict(met='green', missed='bold red')
    for v in verdicts:
        verdict = f'[{styles.get(v.verdict, "yellow")}]{v.verdict}[/]'
        cases = 'all' if v.cases == '*' else v.cases.replace('*', 'any')
        table.add_row(v.part, cases, v.wanted, number(v.measured), verdict)
    console.print(table)


def number(value: float) -> str:
    """Three digits that count, or all those before the point."""
    return f'{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}'


def to_json(
    environment: dict[str, str], settings: dict, cases: list[Case], verdicts: list[Verdict]
) -> dict:
    """All of a run: every sample in seconds, and what was made of them."""
    return dict(
        environment=environment,
        settings=settings,
        cases=[
            dict(
                asdict(case),
                median={who: case.median(who) for who in case.samples},
                spread={who: case.spread(who) for who in case.samples},
                times_ours={who: case.ratio(who) for who in case.samples if who != OURS},
            )
            for case in cases
        ],
        acceptance=[asdict(verdict) for verdict in verdicts],
    )
