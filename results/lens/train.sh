#!/usr/bin/env bash
# The DeepLense entry on simulated lenses (docs/deeplense.md), with its three steps: a classifier of one channel, super-
# resolution by pixels (A) and against a discriminator with the classifier's features (B), and both fine-tuned on 300
# pairs of two telescopes. Everything is simulated here; nothing is fetched.
#   results/lens/train.sh [OUT]
# Fewer epochs than the recipes' own; OMP_NUM_THREADS=1 leaves one core of two to other work.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-out/lens}
mkdir -p "$out"

# (I) three classes in one channel
srbench train classifier resnet10t --in-chans 1 --data lens --recipe lens --name lens-resnet --device cpu \
  --out "$out/lens-resnet"

# (II) from simulated LR at half the side, as the entry's first stage
srbench train srgan --data lens --scale 0.5 --recipe deeplense-a --set parameters.channels=1 --set parameters.factor=2 \
  --set parameters.blocks=8 --set parameters.features=32 --set parameters.upsampler=direct --epochs 4 --device cpu \
  --name lens-a --out "$out/lens-a"
srbench train srgan --data lens --scale 0.5 --recipe deeplense-b --init-from lens-a --classifier lens-resnet \
  --set parameters.discriminator_features=16 --set lr=1e-5 --epochs 1 --device cpu --name lens-b --out "$out/lens-b"

# (III) 300 pairs, the LR of a second telescope
for variant in a b; do
  srbench train srgan --data lens-pairs --recipe finetune --init-from "lens-$variant" --epochs 5 --device cpu \
    --name "lens-$variant-pairs" --out "$out/lens-$variant-pairs"
done

# what is lost at a quarter and at half of the side, and what comes back
srbench eval bicubic lanczos none --data lens --classifier lens-resnet --out "$out/lens" --device cpu
srbench eval bicubic lanczos none srgan --data lens --scale 0.5 --classifier lens-resnet \
  --weights srgan=lens-a --weights srgan=lens-b --out "$out/lens" --device cpu
srbench eval bicubic lanczos none srgan --data lens-pairs --classifier lens-resnet --out "$out/lens-pairs" \
  --weights srgan=lens-a --weights srgan=lens-b --weights srgan=lens-a-pairs --weights srgan=lens-b-pairs --device cpu
srbench report "$out/lens" "$out/lens-pairs" --out "$out"
