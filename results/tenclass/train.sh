#!/usr/bin/env bash
# Trains what results/tenclass compares: sr4ir, darionet, retrained and muller behind one classifier of ten classes, every
# one of them for 6,400 image-steps. Give the folder that holds tenclass/train/ and weights/squeezenet1_1.fp16.safetensors:
#   results/tenclass/train.sh REAL
# About half an hour on two CPU cores; ABLATIONS=1 adds sr4ir's two, a quarter of an hour more. Nothing is trained on or
# selected by tenclass/val, on which eval.sh scores.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
protocol=$PWD/results/tenclass/tenclass-128.toml
mkdir -p out/tenclass
cd out/tenclass
ln -sfn "$real" real
export SRBENCH_WEIGHTS=$PWD/named

fit() { # METHOD, NAME, RECIPE, then the words that are this run's own; 16 images a step, so EPOCHS x 100 steps
  local method=$1 name=$2 recipe=$3
  shift 3
  srbench train "$method" --data folder:real/tenclass/train --classifier squeezenet-ten --protocol "$protocol" \
    --recipe "$recipe" --set steps_per_epoch=100 --set batch_size=16 --set warmup_steps=25 --set augment.flip=true \
    --set select=none --set validate_every=4 --device cpu --seed 0 --out "$name" --name "$name" "$@"
}

# The classifier: SqueezeNet 1.1 of ImageNet, whose last layer starts anew for ten classes.
srbench train classifier torchvision:squeezenet1_1 --data folder:real/tenclass/train --protocol "$protocol" \
  --init-from real/weights/squeezenet1_1.fp16.safetensors --recipe finetune --epochs 6 --set batch_size=16 \
  --set augment.shift=0 --set validate_every=3 --device cpu --seed 0 --out squeezenet-ten --name squeezenet-ten

# sr4ir: a quarter of its steps with the pixel loss alone, the classifier learning from the first step on.
# Wherever a classifier is trained along, by whatever method, it is so by Adam from 1e-4.
small=(--set parameters.blocks=4 --set parameters.features=32 --set classifier_lr=1e-4 --set classifier_optimizer=adam)
fit sr4ir sr4ir-warm-up cpu-small-warm-up --epochs 1 "${small[@]}"
fit sr4ir sr4ir cpu-small --epochs 3 --init-from sr4ir-warm-up "${small[@]}"

# darionet: a quarter for PSNR, then distillation: before the classifier as it is, and trained along with it.
compact=(--set parameters.arch=compact --set parameters.blocks=16 --set parameters.features=32)
fit darionet darionet-psnr cpu-small-psnr --epochs 1 --set patch=none "${compact[@]}"
fit darionet darionet cpu-small --epochs 3 --init-from darionet-psnr "${compact[@]}"
fit darionet darionet-adapted cpu-small --epochs 3 --init-from darionet-psnr "${compact[@]}" \
  --set track=adapted --set losses.ce=1 --set label_smoothing=0.1 --set classifier_lr=1e-4

fit retrained retrained default --epochs 4 --set optimizer=adam --set lr=1e-4 --set schedule=cosine
# muller starts from bilinear in both tracks: its published values are for shrinking.
fit muller muller cpu-small --epochs 4
fit muller muller-adapted cpu-small-adapted --epochs 4

if [ -n "${ABLATIONS:-}" ]; then
  fit sr4ir sr4ir-frozen cpu-small-frozen --epochs 3 --init-from sr4ir-warm-up
  fit sr4ir sr4ir-no-mix cpu-small-no-mix --epochs 3 --init-from sr4ir-warm-up "${small[@]}"
fi
