#!/usr/bin/env bash
# Trains a detector of blood cells on HR, and what is compared behind it at x8 (protocol dense-x8): darionet before the
# frozen detector, sr4ir and retrained with it, each for 512 image-steps and with three seeds. darionet starts from the
# published DISP, sr4ir from bilinear enlargement and with a quarter of its steps for pixels alone. Give the folder that
# holds bccd/ and weights/:
#   results/bccd/train.sh REAL
# A run that is finished is left alone, and one that was stopped goes on from its checkpoint. RUN stands before each run, as
# in RUN='nice -n 10', and SEEDS chooses seeds, as in SEEDS=0. Training reads the split train; nothing is selected by the
# split val, on which eval.sh scores. What it made is copied to weights/ beside this file.
set -euo pipefail
name=bccd data=voc:real/bccd protocol=dense-x8 network=cells steps=64
shared=()
# shellcheck source=results/dense.sh
source "$(dirname "$0")/../dense.sh"

# Cells are 40 to 250 pixels wide, so that a pyramid from stride 16 on finds them at a quarter of the cost.
once cells network fcos --encoder timm:mobilenetv2_100 --init-encoder real/weights/mobilenetv2_tfquant.toml \
  --epochs 14 --set batch_size=4 --set args.width=64 --set args.convs=2 --set args.finest=16 --set select=none \
  --set validate_every=100 --set store_fp16=true --seed 0

fit sr4ir sr4ir-warm-up 0 --recipe cpu-small-warm-up "${quarter[@]}" --set warmup_steps=12
for seed in ${SEEDS:-0 1 2}; do
  fit darionet "darionet-$seed" "$seed" --recipe cpu-small "${whole[@]}" "${disp[@]}"
  fit retrained "retrained-$seed" "$seed" "${whole[@]}"
  fit sr4ir "sr4ir-$seed" "$seed" "${rest[@]}" --set warmup_steps=12 --init-from sr4ir-warm-up
done
keep
