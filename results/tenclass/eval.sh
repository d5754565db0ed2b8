#!/usr/bin/env bash
# Scores what train.sh made on tenclass/val, 500 images, 50 of each class:
#   results/tenclass/eval.sh
# Every set of weights that was trained there fits the task and has a row; seeds share one. The results are in
# out/tenclass/eval, of which
#   python results/refresh.py tenclass out/tenclass/eval --command results/tenclass/eval.sh
# makes this folder's tables.
set -euo pipefail
cd "$(dirname "$0")/../.."
protocol=$PWD/results/tenclass/tenclass-96.toml
cd out/tenclass
export SRBENCH_WEIGHTS=$PWD/named
srbench eval bicubic lanczos sr4ir darionet muller --data folder:real/tenclass/val --classifier lite0-ten \
  --protocol "$protocol" --input-size sweep --device cpu --out eval
