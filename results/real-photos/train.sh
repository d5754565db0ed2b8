#!/usr/bin/env bash
# Makes darionet's weights for photographs at a scale of 0.32 and puts mobilenetv2-x4, which ships, where the package looks
# for it; the stages that lead to it stay among the user's weights. Give the folder that holds train1000/,
# tenclass/train/, weights/mobilenetv2_tfquant.toml and weights/realesr-animevideov3.pth (Real-ESRGAN's compact network,
# BSD-3-Clause, from which the first stage starts):
#   results/real-photos/train.sh REAL
# An hour and a half on two CPU cores. No image of the evaluation is among those that it trains on or selects by.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
assets=$PWD/srbench/weights/shipped/darionet
mkdir -p out/train-real
cd out/train-real
ln -sfn "$real" real

fit() { # NAME, then the words that are this stage's own; two processes of one thread, each with its half of a batch
  local name=$1
  shift
  OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 --no-python srbench train darionet \
    --classifier real/weights/mobilenetv2_tfquant.toml --protocol clean --scale 0.32 --device cpu --licence BSD-3-Clause \
    --set parameters.arch=compact --set parameters.blocks=16 --set parameters.features=64 \
    --out "$name" --name "$name" "$@"
}

fit mobilenetv2-psnr-x4 --data folder:real/train1000 --recipe cpu-small-psnr \
  --init-from real/weights/realesr-animevideov3.pth --set lr=3e-4 --set warmup_steps=50 --set batch_size=8 \
  --set epochs=8 --set steps_per_epoch=250 --set validate_every=4
fit mobilenetv2-first-x4 --data folder:real/train1000 --data folder:real/tenclass/train --recipe cpu-small \
  --init-from mobilenetv2-psnr-x4 --set losses.l1=0.1 --set patch=224 --set lr=2.5e-4 --set warmup_steps=30 \
  --set batch_size=4 --set epochs=6 --set steps_per_epoch=220 --set validate_every=3
fit mobilenetv2-ce-x4 --data folder:real/train1000 --data folder:real/tenclass/train --recipe cpu-small \
  --init-from mobilenetv2-first-x4 --set losses.l1=0.1 --set losses.ce=0.5 --set patch=224 --set ema=0.99 --set lr=2e-4 \
  --set warmup_steps=30 --set batch_size=4 --set epochs=4 --set steps_per_epoch=80 --set validate_every=1 --seed 1

# By the scores alone, and by the labels too: half of each validates better than either (docs/methods/darionet.md).
python ../../results/real-photos/average.py darionet mobilenetv2-first-x4 mobilenetv2-ce-x4 mobilenetv2-x4 --out "$assets"
