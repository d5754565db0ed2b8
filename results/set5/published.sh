#!/usr/bin/env bash
# Scores networks as others published them on Set5, at x4 and at x2. Give the folder that holds set5/ and weights/, and
# the file that results/real-photos/from_ncnn.py makes of Real-ESRGAN x4plus:
#   results/set5/published.sh REAL x4plus.safetensors
set -euo pipefail
real=$(cd "$1" && pwd)
x4plus=$(realpath "$2")
cd "$(dirname "$0")/../.."
mkdir -p out
cd out
ln -sfn "$real" real

score() { # PROTOCOL, then the words that are this call's own
  local protocol=$1
  shift
  srbench eval bicubic lanczos "$@" --data images:real/set5/HR --protocol "$protocol" --device cpu --out set5-published
}

score sr-classic-x2 rdn --weights rdn=real/weights/idealo_rdn_psnr_small_x2.fp16.safetensors
score sr-classic darionet --weights darionet=real/weights/disp_x4.safetensors \
  esrgan --weights esrgan=real/weights/DAT_light_x4.pth --weights esrgan=real/weights/realesr-animevideov3.pth \
  --weights esrgan=real/weights/idealo_rrdn_gans_x4.fp16.safetensors --weights "esrgan=$x4plus"
