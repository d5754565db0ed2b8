#!/usr/bin/env bash
# What limits darionet's photos-x4: the same recipe with fewer steps, with fewer photographs, with fewer and more blocks,
# by the teachers' logits alone and Adam, which the recipe took until it was given stages and SOAP; and these two. Each run
# starts from DISP as published and is validated on the same 151 photographs as photos-x4. Give the folder with
# train_more/, train1000/, tenclass/ and weights/:
#   results/real-photos/limits.sh REAL
# Three hours on one CPU core; a run that is there is not made again. It writes limits.csv and limits.svg here.
set -euo pipefail
real=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
mkdir -p out/limits
cd out/limits
ln -sfn "$real" real
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

python "$here/limits.py" prepare

all=(--data images:real/train_more --data images:real/train1000 --val test)
scale=(--protocol clean --scale 0.32 --device "${DEVICE:-cpu}")
teachers=(--classifier real/weights/mobilenetv2_tfquant.toml --classifier real/weights/tf_efficientnet_lite0.toml)
adam=(--set optimizer=adam --set lr=4e-4)
soap=(--set optimizer=soap --set lr=3e-4)
runs=()
run() { # name, steps, the words that are this run's own
  local name=$1 steps=$2
  shift 2
  runs+=(--weights "darionet=$name/weights/$name.safetensors")
  [ -e "$name/weights/$name.safetensors" ] && return
  srbench train darionet --recipe photos "${adam[@]}" --set losses.stages=0 \
    --set "steps_per_epoch=$steps" --set epochs=1 --set validate_every=1 --set ema=0.99 \
    "${teachers[@]}" --judge real/weights/squeezenet1_1.toml "${scale[@]}" \
    --out "$name" --name "$name" --force "$@"
}

published=real/weights/disp_x4.safetensors
run steps-130 130 "${all[@]}" --init-from "$published"
run steps-520 520 "${all[@]}" --init-from "$published"
run steps-5200 325 "${all[@]}" --init-from "$published" --set epochs=16 --set validate_every=4 --set ema=0.998
run images-260 520 --data images:images-260 --val images:validation --init-from "$published"
run images-1040 520 --data images:images-1040 --val images:validation --init-from "$published"
run blocks-2 520 "${all[@]}" --set parameters.blocks=2 --init-from start-2.safetensors
run blocks-8 520 "${all[@]}" --set parameters.blocks=8 --init-from start-8.safetensors

run logits-soap 130 "${all[@]}" --init-from "$published" "${soap[@]}"
run stages-adam 130 "${all[@]}" --init-from "$published" --set losses.stages=3
run stages-soap 130 "${all[@]}" --init-from "$published" --set losses.stages=3 "${soap[@]}"

# Ten classes of which none of these networks saw an image, and no figure was chosen on.
srbench eval bilinear darionet --data folder:real/tenclass/val "${scale[@]}" --out held-out \
  "${teachers[@]}" --classifier real/weights/squeezenet1_1.toml \
  --weights "darionet=$published" "${runs[@]}"

python "$here/limits.py" draw "$here"
