#!/usr/bin/env bash
# Makes darionet's photos-x4, for photographs at a scale of 0.32 and any classifier, and puts it where the package looks for
# the weights that ship. Give the folder that holds train_more/, train1000/, and in weights/ the cards of the two teachers
# and of SqueezeNet, which only watches, and disp_x4.safetensors (MIT), from which it starts:
#   results/real-photos/train.sh REAL
# An hour with OMP_NUM_THREADS=2 on two CPU cores; `RESUME=--resume results/real-photos/train.sh REAL` goes on where it was stopped. On a GPU, with
# many more steps: RECIPE=photos-gpu DEVICE=cuda. No image of the evaluation is among those that it trains on or validates on.
# mobilenetv2-x4, which ships too, was made by this file as it was at the commit that its card names.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
assets=$PWD/srbench/weights/shipped/darionet
mkdir -p out/train-real
cd out/train-real
ln -sfn "$real" real

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
srbench train darionet --recipe "${RECIPE:-photos}" \
  --data images:real/train_more --data images:real/train1000 --val test \
  --classifier real/weights/mobilenetv2_tfquant.toml --classifier real/weights/tf_efficientnet_lite0.toml \
  --judge real/weights/squeezenet1_1.toml --protocol clean --scale 0.32 --init-from real/weights/disp_x4.safetensors \
  --licence MIT --device "${DEVICE:-cpu}" --out photos-x4 --name photos-x4 ${RESUME:-}
cp photos-x4/weights/photos-x4.{safetensors,json} "$assets"
