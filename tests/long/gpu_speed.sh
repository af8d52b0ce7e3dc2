#!/bin/bash
# What detecting and a training step take on a GPU, and what compiling parts of them would save.
#
#   tests/long/gpu_speed.sh OUT
#
# For a machine with a GPU, where it takes some minutes. Weights are random, with scores that spread as a
# trained detector's do. OUT gets the times as json, and speed.txt with all that is printed.
set -eu
out=$1
mkdir -p "$out"

{
    for config in ssd300_coco ssdlite320_mobilenetv2_coco; do
        python - $config "$out/$config.pth" << 'PROGRAM'
import sys

import ssd_plugin
import torch
from ssd_plugin.datasets.config import input_size
from tests.support.exported import lively_detector, read_config

name, path = sys.argv[1:]
cfg = read_config(name)
torch.save(dict(state_dict=lively_detector(cfg, input_size(cfg)).state_dict()), path)
PROGRAM
        python tools/benchmark.py detect configs/$config.py "$out/$config.pth" --device cuda \
            --batch 1 8 64 --json "$out/detect_$config.json"
    done
    python tools/benchmark.py step --device cuda --amp --json "$out/step.json"
    python tools/benchmark.py loss --device cuda --json "$out/loss.json"
    python tools/benchmark.py postprocess --device cuda --json "$out/postprocess.json"
    python -m tests.long.compiled_head --device cuda
} 2>&1 | tee "$out/speed.txt"
