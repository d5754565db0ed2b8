#!/usr/bin/env bash
# Scores on the 87 images of bccd's split val the weights of this folder, which train.sh made, and the published DISP, from
# which darionet starts. Give the folder that holds bccd/ and weights/disp_x4.safetensors:
#   results/bccd/eval.sh REAL
# Seeds share a row. The results are in out/bccd/eval, of which
#   python results/refresh.py bccd out/bccd/eval --command results/bccd/eval.sh
# makes this folder's tables.
set -euo pipefail
real=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
export SRBENCH_WEIGHTS=$PWD/results/bccd/weights
mkdir -p out/bccd
cd out/bccd
ln -sfn "$real" real
weights=(--weights darionet=real/weights/disp_x4.safetensors)
for file in "$SRBENCH_WEIGHTS"/darionet/*.safetensors; do
  weights+=(--weights "darionet=$(basename "$file" .safetensors)")
done
srbench eval --data voc:real/bccd --split val --network cells --protocol dense-x8 --device cpu --out eval \
  nearest bicubic lanczos area sr4ir retrained darionet "${weights[@]}"
