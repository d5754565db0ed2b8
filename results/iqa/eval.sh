#!/usr/bin/env bash
# Scores what train.sh made on the test split of iqa, 528 patches, at half the side:
#   results/iqa/eval.sh
# The results are in out/iqa/eval, of which
#   python results/refresh.py iqa out/iqa/eval --command results/iqa/eval.sh
# makes this folder's tables.
set -euo pipefail
cd "$(dirname "$0")/../.."
cd out/iqa
export SRBENCH_WEIGHTS=$PWD/named
srbench eval bicubic lanczos nearest learned_resizer --data iqa --classifier iqa-resnet --device cpu --out eval
