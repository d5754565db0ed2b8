#!/usr/bin/env bash
# Trains what results/iqa compares (docs/iqa.md): a quality network on patches of known distortions, the learned resizer
# jointly with it, and the control, the network alone trained as many image-steps more. The data are made on first use;
# nothing is fetched.
#   results/iqa/train.sh
# By estimate ten minutes on one idle core with OMP_NUM_THREADS=1.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p out/iqa
cd out/iqa
export SRBENCH_WEIGHTS=$PWD/named

srbench train classifier resnet10t --data iqa --recipe iqa --device cpu --seed 0 --out iqa-resnet --name iqa-resnet
srbench train learned_resizer --data iqa --classifier iqa-resnet --recipe iqa --device cpu --seed 0 --out iqa-joint \
  --name iqa-joint
srbench train retrained --data iqa --classifier iqa-resnet --recipe iqa --device cpu --seed 0 --out iqa-retrained \
  --name iqa-retrained
