#!/usr/bin/env bash
# Trains a segmentation network of roads on HR, and what is compared behind it at x4 (protocol dense-x4): darionet before the
# frozen network, sr4ir and retrained with it, each for 1,600 image-steps and with three seeds. darionet starts from the
# published DISP, sr4ir from bilinear enlargement and with a quarter of its steps for pixels alone. Give the folder that
# holds camvid/ and weights/:
#   results/camvid/train.sh REAL
# A run that is finished is left alone, and one that was stopped goes on from its checkpoint. RUN stands before each run, as
# in RUN='nice -n 10', and SEEDS chooses seeds, as in SEEDS=0. Training reads camvid/train; nothing is selected by
# camvid/val, on which eval.sh scores. What it made is copied to weights/ beside this file.
set -euo pipefail
name=camvid data=camvid:real/camvid protocol=dense-x4 network=roads steps=200
shared=(--set patch=256)
# shellcheck source=results/dense.sh
source "$(dirname "$0")/../dense.sh"

once roads network fpn --encoder timm:mobilenetv2_100 --init-encoder real/weights/mobilenetv2_tfquant.toml \
  --epochs 30 --set args.decoder_pyramid_channels=128 --set args.decoder_segmentation_channels=64 --set select=none \
  --set validate_every=100 --set store_fp16=true --seed 0

fit sr4ir sr4ir-warm-up 0 --recipe cpu-small-warm-up "${quarter[@]}" --set warmup_steps=12
for seed in ${SEEDS:-0 1 2}; do
  fit darionet "darionet-$seed" "$seed" --recipe cpu-small "${whole[@]}" "${disp[@]}"
  fit retrained "retrained-$seed" "$seed" "${whole[@]}" --set optimizer=adam --set lr=3e-4 --set schedule=cosine
  fit sr4ir "sr4ir-$seed" "$seed" --recipe cpu-small "${rest[@]}" --set warmup_steps=12 --init-from sr4ir-warm-up
done
keep
