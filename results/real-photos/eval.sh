#!/usr/bin/env bash
# Scores every row of real-photos: 500 photographs, three networks behind, every input size. Give the folder that holds
# photos/ and weights/, and the file that from_ncnn.py makes of Real-ESRGAN x4plus; train.sh and train_others.sh make the
# weights that do not ship:
#   results/real-photos/eval.sh REAL x4plus.safetensors
# A stopped run goes on where it was. The slowest rows come last: x4plus takes two seconds an image on one CPU thread.
# results/README.md says why some methods have no row.
set -euo pipefail
real=$(cd "$1" && pwd)
x4plus=$(realpath "$2")
cd "$(dirname "$0")/../.."
mkdir -p out
cd out
ln -sfn "$real" real

score() { # the words that are this call's own
  srbench eval "$@" --data folder:real/photos --protocol clean --scale 0.32 --input-size sweep \
    --classifier real/weights/mobilenetv2_tfquant.toml --classifier real/weights/squeezenet1_1.toml \
    --classifier real/weights/tf_efficientnet_lite0.toml --device cpu --out real-photos
}

score none nearest bilinear bicubic bicubic_opencv bicubic_pillow lanczos area \
  darionet --weights darionet=photos-x4 --weights darionet=mobilenetv2-x4 \
  --weights darionet=real/weights/disp_x4.safetensors
score muller --weights muller=photos learned_resizer --weights learned_resizer=photos \
  srgan --weights srgan=photos-x4 retrained --weights retrained=photos
score rdn --weights rdn=real/weights/idealo_rdn_psnr_small_x2.fp16.safetensors \
  esrgan --weights esrgan=real/weights/realesr-animevideov3.pth \
  --weights esrgan=real/weights/idealo_rrdn_gans_x4.fp16.safetensors
score esrgan --weights esrgan=real/weights/DAT_light_x4.pth --weights "esrgan=$x4plus"
