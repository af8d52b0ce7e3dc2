"""Whether the tests of the core notice faults: mutmut plants them one at a time.

    python -m tests.long.mutation
    python -m tests.long.mutation --sample 400 --seed 1
    python -m tests.long.mutation --only ssd_plugin.models.losses

mutmut makes about a thousand mutants of the modules that `[tool.mutmut]` in pyproject.toml lists.
A seeded sample of them is tested, each by those tests of tests/models that call the mutated
function, in a process that is forked from one that has imported everything. 200 mutants take
ten to twenty minutes on two cores.

A mutant survives if all tests pass. Its diff is printed: either the mutant is equivalent to the
code, or a test is missing. The exit code is 1 if the tests kill fewer than 90 % of the sample.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import get_mutant_name

ROOT = Path(__file__).resolve().parents[2]
MUTMUT = str(Path(sys.executable).with_name('mutmut'))
KILLED = ('killed', 'timeout', 'segfault')
REQUIRED = 0.9


def main() -> None:
    """Draw the sample, test it, print the table and the survivors' diffs."""
    args = parse_args()
    os.chdir(ROOT)  # mutmut works in the current folder
    names = [name for name in all_mutants() if name.startswith(args.only)]
    sample = sorted(random.Random(args.seed).sample(names, min(args.sample, len(names))))
    print(f'{len(sample)} of {len(names)} mutants, drawn with seed {args.seed}')
    statuses = run_mutants(sample)
    print_table(statuses)
    survivors = [name for name, status in statuses.items() if status not in KILLED]
    for name in survivors:
        print(subprocess.check_output([MUTMUT, 'show', name], text=True))
    killed = 1 - len(survivors) / len(sample)
    print(f'{len(sample) - len(survivors)} of {len(sample)} mutants killed: {killed:.1%}')
    sys.exit(killed < REQUIRED)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--sample', type=int, default=200, help='how many mutants')
    parser.add_argument('--seed', type=int, default=0, help='of the sample')
    parser.add_argument('--only', default='', help='mutants whose name begins with this')
    return parser.parse_args()


def all_mutants() -> list[str]:
    """The names of all mutants of the configured modules, always in the same order."""
    names = []
    for path in sorted(walk_mutatable_files()):
        mutants = mutate_file_contents(str(path), path.read_text()).mutant_names
        names += [get_mutant_name(path, name) for name in mutants]
    return names


def run_mutants(names: Sequence[str]) -> dict[str, str]:
    """The status of each of the mutants, in mutmut's words, after testing them."""
    shutil.rmtree('mutants', ignore_errors=True)  # it may hold an older state of the files
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    environment.pop('PYTHONPATH', None)  # the tests must import the mutants, not the originals
    subprocess.run([MUTMUT, 'run', *names], check=True, env=environment)
    exit_codes: dict[str, int | None] = {}
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        exit_codes |= data.exit_code_by_key
    return {name: status_by_exit_code[exit_codes[name]] for name in names}


def print_table(statuses: dict[str, str]) -> None:
    """Print one line for each module: how many mutants it had, and how many were killed."""
    modules = {name: name.rpartition('.')[0] for name in statuses}
    total = Counter(modules.values())
    killed = Counter(modules[name] for name, status in statuses.items() if status in KILLED)
    print(f'\n{"module":40} mutants  killed')
    for module, count in sorted(total.items()):
        print(f'{module:40} {count:7} {killed[module]:7}')
    print()


if __name__ == '__main__':
    main()
