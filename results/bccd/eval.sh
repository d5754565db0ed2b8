#!/usr/bin/env bash
# Scores on the 87 images of bccd's split val the weights of this folder, which train.sh made, and the published DISP, from
# which darionet starts. Give the folder that holds bccd/ and weights/disp_x4.safetensors:
#   results/bccd/eval.sh REAL
# Seeds share a row. The results are in out/bccd/eval, of which
#   python results/refresh.py bccd out/bccd/eval --command results/bccd/eval.sh
# makes this folder's tables.
set -euo pipefail
name=bccd data=voc:real/bccd protocol=dense-x8 network=cells
# shellcheck source=results/dense.sh
source "$(dirname "$0")/../dense.sh"
score
