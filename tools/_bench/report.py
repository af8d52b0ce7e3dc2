"""What was measured and on which machine, as tables on the screen and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import packages_distributions
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmdet
import mmengine
import numpy
import torch
import torchvision
from rich import box
from rich.console import Console
from rich.table import Table

import ssd_plugin

from .timing import ALL, OURS, Case

# Names and widths of the tables' columns.
COLUMNS = {'median': 7, 'quartiles': 13, 'min - max': 13, 'a second': 8, 'times ours': 10}
STYLE: dict[str, Any] = dict(title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False)


def describe_environment(device: str) -> dict[str, str]:
    """Device, threads and versions, as they are printed."""
    info = cpu_info()
    cpu = info.get('model name') or platform.processor() or platform.machine()
    # Whether the device computes in bfloat16, rather than emulating it.
    flags = f'{info.get("flags", "")} {info.get("Features", "")}'.split()
    native = bool({'avx512_bf16', 'amx_bf16', 'bf16'} & set(flags))
    if device == 'cuda':
        native = torch.cuda.get_device_capability() >= (8, 0)
    facts = {
        'device': torch.cuda.get_device_name() if device == 'cuda' else cpu,
        'cores': str(os.cpu_count()),
        'threads': str(torch.get_num_threads()),
        'load before': f'{os.getloadavg()[0]:.1f} processes',  # 0 on an idle machine
        'CPU instructions': torch.backends.cpu.get_cpu_capability(),
        'bfloat16 in hardware': 'yes' if native else 'no',
        'python': platform.python_version(),
    }
    if device == 'cuda':
        facts['CPU'] = cpu
        facts['CUDA, cuDNN'] = f'{torch.version.cuda}, {torch.backends.cudnn.version()}'
    for module in (torch, torchvision, mmengine, mmdet, mmcv, numpy, ssd_plugin):
        facts[module.__name__] = module.__version__
    facts['opencv'] = cv2.__version__
    is_lite = 'mmcv-lite' in packages_distributions().get('mmcv', [])
    facts['mmcv'] += ' (lite)' if is_lite else ' (compiled ops)'
    return facts


def cpu_info() -> dict[str, str]:
    """The fields of the first core in Linux's /proc/cpuinfo; nothing on other systems."""
    path = Path('/proc/cpuinfo')
    first = path.read_text().split('\n\n')[0] if path.is_file() else ''
    fields = (line.partition(':') for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def print_environment(console: Console, environment: dict[str, str]) -> None:
    """Print the device and the versions."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for fact in environment.items():
        table.add_row(*fact)
    console.print(table)


def print_part(console: Console, part: str, cases: list[Case]) -> None:
    """Print each contestant's times and their ratio to ours, a table a case, and the stages."""
    stages = [case for case in cases if case.part == 'stages']
    cases = [case for case in cases if case.part == part]
    rounds = len(cases[0].samples[cases[0].base])
    console.print(f'\n[bold]{part}[/]: milliseconds per {cases[0].unit}, {rounds} rounds')
    for case in cases:
        table = Table(title=case.name, **STYLE)
        table.add_column('contestant', min_width=26)
        for column, width in COLUMNS.items():
            column = column.replace('ours', case.base) if case.base != OURS else column
            table.add_column(column, justify='right', min_width=width, no_wrap=True)
        for who in case.samples:
            median, spread = case.median(who), case.spread(who)
            low, q1, q3, high = (number(1000 * spread[k]) for k in ('min', 'q1', 'q3', 'max'))
            ratio = '' if who == case.base else f'{number(case.ratio(who))} x'
            times = number(1000 * median), f'{q1} - {q3}', f'{low} - {high}', number(1 / median)
            table.add_row(who, *times, ratio)
        facts = ', '.join(f'{name} {value}' for name, value in case.facts.items())
        console.print(table, f'[dim]{facts}[/]', sep='')
    if stages:
        print_stages(console, stages)


def print_stages(console: Console, cases: list[Case]) -> None:
    """Print each model's times by stage, and their shares, a table a run."""
    for run, members in groupby(cases, lambda case: case.facts['run']):
        table = Table(title=f'stages if none overlaps with another, {run}', **STYLE)
        table.add_column('contestant')
        for stage in cases[0].samples:
            table.add_column(stage, justify='right')
        for case in members:
            times = {who: number(1000 * case.median(who)) for who in case.samples}
            shares = [f'{times[who]} ({case.ratio(who):.0%})' for who in times if who != ALL]
            table.add_row(str(case.facts['contestant']), times[ALL], *shares)
        console.print(table)


def print_verdicts(console: Console, verdicts: list[dict]) -> None:
    """Print the acceptance table."""
    table = Table('part', 'case (the worst of them)', 'wanted', title='acceptance', **STYLE)
    table.add_column('measured', justify='right')
    table.add_column('verdict')
    styles = dict(met='green', missed='bold red')
    for line in verdicts:
        cases = 'all' if line['cases'] == '*' else line['cases'].replace('*', 'any')
        verdict = f'[{styles.get(line["verdict"], "yellow")}]{line["verdict"]}[/]'
        table.add_row(line['part'], cases, line['wanted'], number(line['measured']), verdict)
    console.print(table)


def number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f'{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}'


def describe_case(case: Case) -> dict:
    """Every sample in seconds, medians, spreads and ratios, for JSON."""
    median, spread = ({who: f(who) for who in case.samples} for f in (case.median, case.spread))
    ratios = {who: case.ratio(who) for who in case.samples if who != case.base}
    return dict(asdict(case), median=median, spread=spread, times_ours=ratios)
