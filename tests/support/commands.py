"""Commands as a user types them, each in a process of its own."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Importing MMDetection takes longer than most of what the tests have a command do. A fork of a
# server that has imported it starts at once, and is as good as new: the server runs nothing.
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(
    ['ssd_plugin', 'mmdet.apis', 'mmdet.visualization', 'matplotlib', 'tests.support.plain_configs']
)


def run(*args, cwd, path=(), fails=False, timeout=200):
    """Run Python with `args`; its output, standard error included. ``path`` precedes sys.path."""
    search = os.pathsep.join([*map(str, path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, env=clean_environment(PYTHONPATH=search),
        timeout=timeout, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert bool(done.returncode) == fails, done.stdout
    return done.stdout


def clean_environment(**changes):
    """This process's environment, but for a launcher's variables; it finds this checkout."""
    launchers = 'RANK', 'LOCAL_RANK', 'WORLD_SIZE'
    kept = {name: value for name, value in os.environ.items() if name not in launchers}
    return kept | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)) | changes


def run_warm(tool, *args, cwd, fails=False, timeout=200):
    """`run` of a script in a process that has MMDetection imported already."""
    with tempfile.NamedTemporaryFile() as output:
        process = start_warm(tool, *args, cwd=cwd, output=output.name)
        process.join(timeout)
        process.kill()
        process.join()
        said = output.read().decode()
    assert bool(process.exitcode) == fails, said
    return said


def start_warm(tool, *args, cwd, output):
    """Start a script as `run_warm` does, and answer its process; what it prints is in a file."""
    argv = [str(tool), *map(str, args)]
    process = SERVER.Process(target=run_script, args=(argv, str(cwd), str(output)))
    process.start()
    return process


def wait_until(condition, seconds=60):
    """Return once a condition holds, or after a time whether it does or not."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def run_script(argv, cwd, output):
    import torch

    # Open until the process ends: what ends it is printed there, too.
    sys.stdout = sys.stderr = open(output, 'w', buffering=1, encoding='utf-8')  # noqa: SIM115
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    os.chdir(cwd)
    # A shell has what it starts in the background ignore it, such as the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).resolve().parent))
    torch.set_num_threads(1)
    runpy.run_path(argv[0], run_name='__main__')
