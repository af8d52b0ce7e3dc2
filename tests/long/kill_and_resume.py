"""Kill training runs at random moments and resume them: the weights must be the same every time.

    python -m tests.long.kill_and_resume --runs 10

Each run is killed (SIGKILL) several times, wherever it happens to be, and resumed until it ends.
Loops, loaders' workers and a run's kills take turns. Prints the sha256 of each run's final
weights; the exit code is 1 if one differs from that of a run which was not killed.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.support.commands import ROOT, run_warm, start_warm
from tests.support.tiny_training import BY_ITERATION, write_training

TRAIN, DIGEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'state_digest.py'
LAST = 'iter_15.pth'


def train_with_kills(config: Path, work_dir: Path, workers: int, kills: list[float]) -> list[str]:
    """Train, killed these many seconds after each start, and resumed to the end.

    Returns what each of the processes printed.
    """
    said = []
    for seconds in [*kills, None]:
        output = work_dir.with_name(f'{work_dir.name}_{len(said)}.txt')
        process = start_warm(
            TRAIN, config, '--work-dir', work_dir, '--resume', '--cfg-options',
            f'train_dataloader.num_workers={workers}', '--verbose',
            cwd=work_dir.parent, output=output,
        )  # fmt: skip
        process.join(200 if seconds is None else seconds)
        process.kill()
        process.join()
        said.append(output.read_text())
        if seconds is None and process.exitcode:
            raise RuntimeError(said[-1])
    return said


def digest(checkpoint: Path) -> str:
    return run_warm(DIGEST, checkpoint, cwd=checkpoint.parent).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=10)
    parser.add_argument('--kills', type=int, default=4, help='of each run')
    parser.add_argument('--seed', type=int, default=random.randrange(2**32), help='of the moments')
    args = parser.parse_args()
    moments = random.Random(args.seed)
    print(f'seed {args.seed}')
    differing = 0
    run_warm(DIGEST, '--help', cwd=ROOT)  # the first command waits for the imports
    with tempfile.TemporaryDirectory() as folder:
        settings = []
        for name, extra in (('epochs', ''), ('iterations', BY_ITERATION)):
            root = Path(folder) / name
            root.mkdir()
            config = write_training(root, extra)
            start = time.monotonic()
            train_with_kills(config, root / 'whole', workers=0, kills=[])
            length = time.monotonic() - start
            expected = digest(root / 'whole' / LAST)
            settings.append((name, config, length, expected))
            print(f'{name:<11} {expected}  never killed, {length:.1f} s', flush=True)
        for run in range(args.runs):
            name, config, length, expected = settings[run % 2]
            workers = run // 2 % 3
            kills = [moments.uniform(0.2, 1) * length for _ in range(args.kills)]
            work_dir = config.parent / f'run_{run}'
            said = train_with_kills(config, work_dir, workers, kills)
            found = digest(work_dir / LAST)
            resumed = [text.split('resumed epoch: ')[1].split('\n')[0].split('iter: ')[1]
                       for text in said if 'resumed epoch: ' in text]  # fmt: skip
            verdict = 'same' if found == expected else 'DIFFERENT'
            print(f'{name:<11} {found}  {verdict}, {workers} workers, resumed at iterations '
                  f'{", ".join(resumed)}', flush=True)  # fmt: skip
            differing += found != expected
    sys.exit(f'{differing} of {args.runs} runs differ' if differing else 0)


if __name__ == '__main__':
    main()
