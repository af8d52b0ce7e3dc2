#!/bin/bash
# What the recipe for own data reaches, and in how many seconds: three seeds on each data set, then a table.
#
#   tests/long/recipe.sh DATA LITE0_WEIGHTS VGG_WEIGHTS OUT [OPTIONS of side_by_side, as --epochs 24]
#
# DATA has the folders bccd and cards. For a machine with a GPU, where it takes some minutes; on two CPU cores it takes
# hours. Runs whose json is in OUT already are not repeated.
set -eu
data=$1 lite0=$2 vgg=$3 out=$4
shift 4
mkdir -p "$out"

train() {  # NAME, then the arguments of side_by_side
    local json=$out/$1.json
    shift
    [ -f "$json" ] || python -m tests.long.side_by_side "$@" --out "$json"
}

for seed in 0 1 2; do
    for name in bccd cards; do
        train "$name-lite0-$seed" "$data/$name" --config configs/ssdlite320_efficientnetlite0.py \
            --weights "$lite0" --seed $seed "$@"
    done
    train "bccd-vgg-$seed" "$data/bccd" --config configs/ssd300_vgg16.py \
        --weights "$vgg" --seed $seed --amp "$@"
done
python -m tests.long.side_by_side --report "$out"
