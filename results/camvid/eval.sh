#!/usr/bin/env bash
# Scores what train.sh made on the 101 photographs of camvid/val:
#   results/camvid/eval.sh
# Every set of weights that was trained there fits the task and has a row; seeds share one. The results are in out/camvid/eval,
# of which
#   python results/refresh.py camvid out/camvid/eval --command results/camvid/eval.sh
# makes this folder's tables.
set -euo pipefail
cd "$(dirname "$0")/../../out/camvid"
export SRBENCH_WEIGHTS=$PWD/named
srbench eval bicubic darionet sr4ir retrained --data camvid:real/camvid --split val --network roads \
  --device cpu --out eval
