#!/usr/bin/env bash
# Makes every set of weights that ships for the demo tasks, and puts it where the package looks for it.
#   results/demo/train.sh                  all of them, in this order
#   results/demo/train.sh classifiers      the two classifiers alone; every other name below works the same way
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=out/train-demo
assets=srbench/weights/shipped

ship() { # OWNER NAME
  mkdir -p "$assets/$1"
  cp "$runs/$1-$2/weights/$2.safetensors" "$runs/$1-$2/weights/$2.json" "$assets/$1/"
}

stage() { # OWNER NAME, then the words of `srbench train`; `data` is another demo than patches
  local owner=$1 name=$2
  shift 2
  srbench train "$@" --data "${data:-demo}" --device cpu --name "$name" --out "$runs/$owner-$name"
}

fit() { # the same, and it ships
  stage "$@"
  ship "$1" "$2"
}

classifiers() {
  fit classifiers demo-resnet classifier resnet10t --recipe demo-resnet
  fit classifiers demo-vit classifier xcit_nano_12_p8_224 --recipe demo-vit
}

esrgan() { # the recipe of the paper: a PSNR stage, then adversarial and feature losses
  fit esrgan demo-psnr-x4 esrgan --recipe demo-psnr
  fit esrgan demo-x4 esrgan --recipe demo-gan --init-from demo-psnr-x4 --classifier demo-resnet
}

darionet() { # starts from esrgan's PSNR stage
  fit darionet demo-x4 darionet --recipe demo --classifier demo-resnet
}

learned_resizer() {
  fit learned_resizer demo-frozen learned_resizer --recipe demo-frozen --classifier demo-resnet
  fit learned_resizer demo-adapted learned_resizer --recipe demo-adapted --classifier demo-resnet
  fit learned_resizer demo-adapted-vit learned_resizer --recipe demo-adapted --classifier demo-vit
}

retrained() { # the control, for each classifier: as many image-steps as esrgan's PSNR stage and darionet's together
  fit retrained demo-resnet retrained --recipe demo --classifier demo-resnet
  fit retrained demo-vit retrained --recipe demo --classifier demo-vit
}

adabn() { # the further controls, for each classifier, with as many image-steps
  fit adabn demo-resnet adabn --recipe demo --classifier demo-resnet
  fit adabn demo-vit adabn --recipe demo --classifier demo-vit
}

fixres() {
  fit fixres demo-resnet fixres --recipe demo --classifier demo-resnet
  fit fixres demo-vit fixres --recipe demo --classifier demo-vit
}

lr_student() {
  fit lr_student demo-resnet lr_student --recipe demo --classifier demo-resnet
  fit lr_student demo-vit lr_student --recipe demo --classifier demo-vit
}

muller() {
  fit muller demo muller --recipe demo --classifier demo-resnet
}

rdn() {
  fit rdn demo-x4 rdn --recipe demo
}

srgan() { # variant A, which stays among the user's weights, then B from it
  stage srgan demo-a-x4 srgan --recipe demo
  fit srgan demo-x4 srgan --recipe demo-gan --init-from demo-a-x4 --classifier demo-resnet
}

sr4ir() { # for each classifier, which is trained in turn with it; both start from one warm-up by the pixels alone
  stage sr4ir demo-warm-up sr4ir --recipe demo-warm-up --classifier demo-resnet
  fit sr4ir demo-resnet sr4ir --recipe demo --init-from demo-warm-up --classifier demo-resnet
  fit sr4ir demo-vit sr4ir --recipe demo --init-from demo-warm-up --classifier demo-vit
}

dense() { # the networks of the scenes, masks and boxes; their encoders start from the first of the classifiers
  data=demo-seg fit classifiers demo-seg network fpn --encoder timm:resnet10t --init-encoder demo-resnet --recipe demo-seg
  data=demo-det fit classifiers demo-det network fcos --encoder timm:resnet10t --init-encoder demo-resnet --recipe demo-det
}

for part in "${@:-classifiers esrgan darionet learned_resizer retrained adabn fixres lr_student muller rdn srgan sr4ir dense}"; do
  for each in $part; do "$each"; done
done
