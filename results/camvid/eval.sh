#!/usr/bin/env bash
# Scores on the 101 photographs of camvid/val the weights of this folder, which train.sh made, and the published DISP, from
# which darionet starts. Give the folder that holds camvid/ and weights/disp_x4.safetensors:
#   results/camvid/eval.sh REAL
# Seeds share a row. The results are in out/camvid/eval, of which
#   python results/refresh.py camvid out/camvid/eval --command results/camvid/eval.sh
# makes this folder's tables.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
export SRBENCH_WEIGHTS=$PWD/results/camvid/weights
mkdir -p out/camvid
cd out/camvid
ln -sfn "$real" real
weights=(--weights darionet=real/weights/disp_x4.safetensors)
for file in "$SRBENCH_WEIGHTS"/darionet/*.safetensors; do
  weights+=(--weights "darionet=$(basename "$file" .safetensors)")
done
srbench eval --data camvid:real/camvid --split val --network roads --device cpu --out eval \
  nearest bicubic lanczos area sr4ir retrained darionet "${weights[@]}"
