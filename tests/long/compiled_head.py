"""What compiling matching and loss would save, and how long it takes to start.

    python -m tests.long.compiled_head --device cuda

On a GPU they are bound by the host: hundreds of small operations. They are timed in turns as they
are and compiled, with CUDA graphs and without; the seconds to start are those of the first calls
for three batches whose largest numbers of objects differ, as they do in training. Post-processing
is left out: what it keeps depends on the scores, and PyTorch 2.11's compiler ends in an internal
error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))

from _bench.contestants import our_head
from _bench.loss import Inputs, gradient, head_loss, make_inputs
from _bench.timing import Stopwatch

OBJECTS = 5, 12, 20  # the most in an image, of three batches
MODES = {'as it is': None, 'compiled': 'default', 'compiled, CUDA graphs': 'reduce-overhead'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda')
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--repeats', type=int, default=21)
    args = parser.parse_args()
    head = our_head().to(args.device)
    batches = [make_inputs(args.batch, args.device, objects) for objects in OBJECTS]
    works, starts = {}, {}
    for name, mode in MODES.items():
        if mode == 'reduce-overhead' and args.device == 'cpu':
            continue
        calls = losses_of(head, batches, mode)
        begin = time.perf_counter()
        for call in calls:
            call()
        if args.device == 'cuda':
            torch.cuda.synchronize()
        starts[name], works[name] = time.perf_counter() - begin, calls[0]
    table = Table('matching, loss and gradient', 'seconds to start', 'ms a batch')
    for name, samples in Stopwatch(args.device, args.repeats).alternate(works).items():
        table.add_row(name, f'{starts[name]:.1f}', f'{median(samples) * 1e3:.2f}')
    (Console() if sys.stdout.isatty() else Console(width=110)).print(table)


def losses_of(head: torch.nn.Module, batches: list[Inputs], mode: str | None) -> list[Callable]:
    """Functions that compute loss and gradient, one for each batch."""
    loss = head_loss if mode is None else torch.compile(head_loss, mode=mode)
    return [
        partial(gradient, partial(loss, head, inputs), inputs.cls_scores + inputs.bbox_preds)
        for inputs in batches
    ]


if __name__ == '__main__':
    main()
