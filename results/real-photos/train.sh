#!/usr/bin/env bash
# Makes darionet's weights for photographs at a scale of 0.32 and puts mobilenetv2-x4, which ships, where the package looks
# for it; its PSNR stage, mobilenetv2-psnr-x4, stays among the user's weights. Give the folder that holds train1000/,
# tenclass/train/ and weights/mobilenetv2_tfquant.toml:
#   results/real-photos/train.sh REAL
# Two hours on two CPU cores. No image of the evaluation is among those that it trains on or selects by.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
assets=$PWD/srbench/assets/weights/darionet
mkdir -p out/train-real
cd out/train-real
ln -sfn "$real" real

fit() { # NAME, LAUNCHER, then the words that are this stage's own
  local name=$1 launcher=$2
  shift 2
  $launcher train darionet --data folder:real/train1000 --data folder:real/tenclass/train \
    --classifier real/weights/mobilenetv2_tfquant.toml --protocol clean --scale 0.32 --device cpu \
    --set parameters.blocks=2 --out "$name" --name "$name" "$@"
}

fit mobilenetv2-psnr-x4 srbench --recipe cpu-small-psnr --epochs 2 --set steps_per_epoch=120 --set validate_every=2
fit mobilenetv2-first-x4 srbench --recipe cpu-small --init-from mobilenetv2-psnr-x4 --epochs 4 --set patch=192 \
  --set lr=4e-4 --set warmup_steps=20 --set steps_per_epoch=105 --set validate_every=4
fit mobilenetv2-x4 "torchrun --nproc-per-node 2 --no-python srbench" --recipe cpu-small \
  --init-from mobilenetv2-first-x4 --epochs 6 --set patch=192 --set lr=3e-4 --set warmup_steps=20 \
  --set batch_size=4 --set steps_per_epoch=250 --set validate_every=3

cp mobilenetv2-x4/weights/mobilenetv2-x4.safetensors mobilenetv2-x4/weights/mobilenetv2-x4.json "$assets/"
