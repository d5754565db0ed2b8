#!/usr/bin/env bash
# Trains what results/tenclass compares behind one classifier of ten classes: four controls (adabn, fixres, lr_student,
# retrained) and sr4ir, darionet and muller, every one of them for 800 image-steps and with three seeds. Give the folder
# that holds tenclass/train/ and weights/tf_efficientnet_lite0.fp16.safetensors:
#   results/tenclass/train.sh REAL
# About a quarter of an hour of one CPU core. A run that is finished is left alone, so the script goes on where it was stopped. RUN
# stands before each run, as in RUN='nice -n 10'. Nothing is trained on or selected by tenclass/val, on which eval.sh scores.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
protocol=$PWD/results/tenclass/tenclass-96.toml
mkdir -p out/tenclass
cd out/tenclass
ln -sfn "$real" real
export SRBENCH_WEIGHTS=$PWD/named

once() { # NAME, then the words of `srbench train`
  local name=$1
  shift
  [ -f "$name/weights/$name.safetensors" ] ||
    ${RUN:-} srbench train "$@" --data folder:real/tenclass/train --protocol "$protocol" --device cpu --out "$name" \
      --name "$name" --force
}

fit() { # METHOD, NAME, SEED, RECIPE, then the words that are this run's own; 16 images a step
  local method=$1 name=$2 seed=$3 recipe=$4
  shift 4
  once "$name" "$method" --classifier lite0-ten --recipe "$recipe" --seed "$seed" --set batch_size=16 \
    --set augment.flip=true --set select=none --set validate_every=100 "$@"
}

# The classifier: EfficientNet-lite0 of ImageNet, whose batch norms hold their statistics; its last layer starts anew.
once lite0-ten classifier tf_efficientnet_lite0 --init-from real/weights/tf_efficientnet_lite0.fp16.safetensors \
  --recipe finetune --epochs 5 --set batch_size=16 --set lr=5e-4 --set augment.shift=0 --seed 0

quarter=(--epochs 1 --set steps_per_epoch=12)
rest=(--epochs 1 --set steps_per_epoch=38)
whole=(--epochs 1 --set steps_per_epoch=50)
compact=(--set parameters.arch=compact --set parameters.blocks=16 --set parameters.features=32)
small=(--set warmup_steps=12 --set parameters.blocks=4 --set parameters.features=32 --set classifier_lr=3e-4 --set classifier_optimizer=adam)
# Wherever a classifier is trained along by labels, it is so by Adam from 3e-4, falling as a cosine.
along=(--set optimizer=adam --set lr=3e-4 --set schedule=cosine)

fit darionet darionet-psnr 0 cpu-small-psnr "${quarter[@]}" --set warmup_steps=12 --set patch=none "${compact[@]}"
for seed in 0 1 2; do
  fit adabn "adabn-$seed" "$seed" cpu-small --set steps_per_epoch=50 --set norm_steps=50
  fit fixres "fixres-$seed" "$seed" cpu-small "${whole[@]}"
  fit retrained "retrained-$seed" "$seed" default "${whole[@]}" "${along[@]}"
  fit lr_student "lr_student-$seed" "$seed" cpu-small "${whole[@]}" --set warmup_steps=12
  fit lr_student "lr_student-half-$seed" "$seed" cpu-small "${whole[@]}" --set warmup_steps=12 --set parameters.factor=2
  # muller starts from bilinear: its published values are for shrinking.
  fit muller "muller-adapted-$seed" "$seed" cpu-small-adapted "${whole[@]}" --set classifier_lr=3e-4
  # darionet: a quarter for PSNR, then distillation: before the classifier as it is, and trained along with it.
  fit darionet "darionet-$seed" "$seed" cpu-small "${rest[@]}" --set warmup_steps=12 --init-from darionet-psnr \
    "${compact[@]}"
  fit darionet "darionet-adapted-$seed" "$seed" cpu-small "${rest[@]}" --set warmup_steps=12 \
    --init-from darionet-psnr "${compact[@]}" --set track=adapted --set losses.ce=1 --set label_smoothing=0.1 \
    --set classifier_lr=3e-4
done
# sr4ir: a quarter of its steps with the pixel loss alone, the classifier learning from the first step on.
fit sr4ir sr4ir-warm-up 0 cpu-small-warm-up "${quarter[@]}" "${small[@]}"
for seed in 0 1 2; do
  fit sr4ir "sr4ir-$seed" "$seed" cpu-small "${rest[@]}" --init-from sr4ir-warm-up "${small[@]}"
done
