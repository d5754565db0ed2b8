#!/usr/bin/env bash
# Scores on the 101 photographs of camvid/val the weights of this folder, which train.sh made, and the published DISP, from
# which darionet starts. Give the folder that holds camvid/ and weights/disp_x4.safetensors:
#   results/camvid/eval.sh REAL
# Seeds share a row. The results are in out/camvid/eval, of which
#   python results/refresh.py camvid out/camvid/eval --command results/camvid/eval.sh
# makes this folder's tables.
set -euo pipefail
name=camvid data=camvid:real/camvid protocol=dense-x4 network=roads
# shellcheck source=results/dense.sh
source "$(dirname "$0")/../dense.sh"
score
