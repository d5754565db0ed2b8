# Read by train.sh and eval.sh of bccd and of camvid: the folder of the runs, how one is made, kept and scored. They set
#   name      of the folder in out/
#   data      SPEC that all train on
#   protocol  of LR
#   network   that the methods stand before
#   steps     of each method, 8 images each; eval.sh needs none
#   shared    words of `srbench train` that all methods share; eval.sh needs none
real=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "out/$name"
cd "out/$name"
ln -sfn "$real" real
export SRBENCH_WEIGHTS=$PWD/named

once() { # NAME, then the words of `srbench train`
  local name=$1 resume=()
  shift
  [ -f "$name/checkpoint.pt" ] && resume=(--resume)
  [ -f "$name/weights/$name.safetensors" ] ||
    ${RUN:-} srbench train "$@" --data "$data" --protocol "$protocol" --device cpu --out "$name" --name "$name" \
      --set checkpoint_every=10 "${resume[@]}"
}

fit() { # METHOD, NAME, SEED, then the words that are this run's own; 8 images a step
  local method=$1 name=$2 seed=$3
  shift 3
  once "$name" "$method" --network "$network" --seed "$seed" --set batch_size=8 --set augment.flip=true "${shared[@]}" \
    --set select=none --set validate_every=100 "$@"
}

keep() { # all that has a name but the pixel stage, which is no method of its own
  mkdir -p "../../results/$name/weights"
  cp -r named/. "../../results/$name/weights"
  rm -f "../../results/$name/weights/sr4ir/sr4ir-warm-up".*
}

score() { # what is kept, and the published DISP beside it, so that each set of darionet's weights has to be named
  export SRBENCH_WEIGHTS=$PWD/../../results/$name/weights
  local weights=(--weights darionet=real/weights/disp_x4.safetensors) file
  for file in "$SRBENCH_WEIGHTS"/darionet/*.safetensors; do
    weights+=(--weights "darionet=$(basename "$file" .safetensors)")
  done
  srbench eval --data "$data" --split val --network "$network" --protocol "$protocol" --device cpu --out eval \
    nearest bicubic lanczos area sr4ir retrained darionet "${weights[@]}"
}

steps=${steps:-0}
quarter=(--epochs 1 --set steps_per_epoch=$((steps / 4)))
rest=(--epochs 1 --set steps_per_epoch=$((steps - steps / 4)))
whole=(--epochs 1 --set steps_per_epoch="$steps")
disp=(--init-from real/weights/disp_x4.safetensors --set parameters.arch=disp --set parameters.blocks=4
  --set parameters.features=32 --set lr=4e-4 --set warmup_steps=12 --set ema=0.98)
