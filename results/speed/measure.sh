#!/usr/bin/env bash
# How much of a device the full RRDB of ESRGAN (23 blocks of 64 features, x4, 81 x 81) uses, alone and in an evaluation of
# photographs, in fp32 and bf16. Give the folder that holds photos/, train1000/ and weights/mobilenetv2_tfquant.toml, and
# the device:
#   results/speed/measure.sh REAL cuda
#   results/speed/measure.sh REAL cpu
# Both run the same steps. On a CPU the network that is trained and evaluated is small, and 24 photographs are taken: the
# full one would take half an hour for the photographs alone. Everything lies in out/speed/, or in the folder that stands
# behind the device; summary.md is the table.
set -euo pipefail
real=$(cd "$1" && pwd)
device=$2
script=$(cd "$(dirname "$0")" && pwd)
out=${3:-$script/../../out/speed}
mkdir -p "$out"
cd "$out"
ln -sfn "$real" real
classifier=real/weights/mobilenetv2_tfquant.toml
full='blocks=23&features=64'
case $device in
  cuda) blocks=23 features=64 steps=500 patches=16 batches=(--batch-size 32 --batch-size 128) limit=() ;;
  cpu) blocks=1 features=16 steps=100 patches=8 batches=(--batch-size 1) limit=(--limit 24) ;;
  *) echo "the device is cuda or cpu, got $device" >&2 && exit 2 ;;
esac

time_network() { # NAME, then further words
  local name=$1
  shift
  srbench bench esrgan --weights "esrgan=untrained?$full" --size 81 "${batches[@]}" --device "$device" \
    --out "bench-$name.json" "$@"
}

time_network fp32 --classifier "$classifier"
if [ "$device" = cuda ]; then # a CPU without bf16 arithmetic takes minutes an image
  time_network bf16 --precision bf16 --classifier "$classifier"
  time_network bf16-compiled --precision bf16 --compile
fi

# Pixels alone, long enough that predictions on its images mean something.
srbench train esrgan --recipe psnr --data folder:real/train1000 --protocol sr-classic --device "$device" \
  --set "parameters.blocks=$blocks" --set "parameters.features=$features" --set epochs=1 --set "steps_per_epoch=$steps" \
  --set "batch_size=$patches" --out training --name speed-x4

for precision in fp32 bf16; do
  srbench eval bicubic esrgan --weights esrgan=speed-x4 --data folder:real/photos --classifier "$classifier" \
    --device "$device" --precision "$precision" "${limit[@]}" --force --out "eval-$precision"
done

python "$script/summary.py" .
cat summary.md
