#!/usr/bin/env bash
# Scores what train.sh made on the 87 images of bccd's split val:
#   results/bccd/eval.sh
# Every set of weights that was trained there fits the task and has a row; seeds share one. The results are in out/bccd/eval,
# of which
#   python results/refresh.py bccd out/bccd/eval --command results/bccd/eval.sh
# makes this folder's tables.
set -euo pipefail
cd "$(dirname "$0")/../../out/bccd"
export SRBENCH_WEIGHTS=$PWD/named
srbench eval bicubic darionet sr4ir retrained --data voc:real/bccd --split val --network cells --protocol dense-x8 \
  --device cpu --out eval
