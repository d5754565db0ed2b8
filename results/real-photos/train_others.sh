#!/usr/bin/env bash
# Makes weights of muller, learned_resizer, srgan and retrained for photographs at a scale of 0.32, from the photographs
# that darionet's photos-x4 is trained on (train.sh). No labels are used, and the classifier stands still, but for
# retrained. Give the folder that holds train_more/, train1000/ and weights/mobilenetv2_tfquant.toml, and the methods, or
# all of them if left out:
#   results/real-photos/train_others.sh REAL
#   results/real-photos/train_others.sh REAL muller srgan
# The weights stay among the user's, named photos and photos-x4. A quarter of an hour of one CPU thread for all; no image
# of the evaluation is among those that they are trained on or selected by.
set -euo pipefail
real=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/../.."
mkdir -p out/train-real
cd out/train-real
ln -sfn "$real" real

fit() { # METHOD NAME, then the words that are this stage's own
  local method=$1 name=$2
  shift 2
  OMP_NUM_THREADS=1 srbench train "$method" --data images:real/train_more --data images:real/train1000 \
    --protocol clean --scale 0.32 --device cpu --limit 2400 --out "$method-$name" --name "$name" "$@"
}

judge=(--classifier real/weights/mobilenetv2_tfquant.toml)

muller() { # four scalars need few steps
  fit muller photos "${judge[@]}" --recipe logits --set batch_size=8 --set epochs=2 --set steps_per_epoch=40
}

learned_resizer() {
  fit learned_resizer photos "${judge[@]}" --recipe logits --set losses.l1=0.1 --set batch_size=8 --set epochs=2 \
    --set steps_per_epoch=80
}

srgan() { # variant A, then B from it: pixels, the classifier's features and a discriminator
  fit srgan photos-a-x4 --recipe cpu-small --set epochs=2 --set steps_per_epoch=250 --set warmup_steps=50
  fit srgan photos-x4 "${judge[@]}" --recipe gan --init-from photos-a-x4 --set epochs=1 --set steps_per_epoch=60 \
    --set batch_size=8 --set parameters.discriminator_features=16
}

retrained() { # the network behind learns to give bilinear images the scores that it gave the originals
  fit retrained photos "${judge[@]}" --recipe logits --set batch_size=8 --set epochs=2 --set steps_per_epoch=80
}

for part in "${@:-muller learned_resizer srgan retrained}"; do
  for each in $part; do "$each"; done
done
