#!/usr/bin/env bash
# Runs the tests that concern devices on the virtual CUDA device, with every check on: each tensor in
# memory of its own (CENTROID_ALLOC=system), and the order of threads, warps, blocks and streams drawn
# from a seed. Usage: tests/emulated.sh ARCH SEED... (programs in build/emulated<ARCH>/bin)
set -u
cd "$(dirname "$0")/.."
arch=$1
shift
bin=build/emulated$arch/bin
export CENTROID_EMULATED=1 VGPU_MEMORY=${VGPU_MEMORY:-2147483648}
failed=0
run() { # settings... -- program arguments...
  local settings=()
  while [ "$1" != -- ]; do settings+=("$1"); shift; done
  shift
  echo "== compute_$arch ${settings[*]}: $*"
  local begin=$SECONDS
  env "${settings[@]}" "$@" > "$log" 2>&1
  local status=$?
  tail -n "$([ $status = 0 ] && echo 3 || echo 60)" "$log" | grep -v '^=*$'
  echo "   $((SECONDS - begin)) s, exit $status"
  [ $status = 0 ] || failed=$((failed + 1))
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

for seed in "$@"; do
  run CENTROID_ALLOC=system VGPU_SEED="$seed" -- "$bin/test_cuda"
done
run VGPU_SEED=0 -- "$bin/test_cuda" "cuda: a training step can be captured into a graph"
for layer in tensor autograd nn; do
  run CENTROID_ALLOC=system CENTROID_TEST_DEVICE=cuda -- "$bin/test_$layer" '~[host]~[slow]~[.]'
done

# Short trainings, by the programs themselves.
runs=$(mktemp -d)
trap 'rm -rf "$log" "$runs"' EXIT
small="--layers 1 --heads 2 --width 16 --hidden 32 --batch 4 --device cuda"
run -- "$bin/copy" train --task masked --length 16 --steps 6 --eval-every 0 $small \
  --attention improved-clustered:clusters=4,bits=16,topk=4 --out "$runs/copy"
run -- "$bin/copy" train --resume "$runs/copy" --steps 8
run -- "$bin/copy" eval --model "$runs/copy" --device cuda --items 4
[ $failed = 0 ] && echo "compute_$arch: all passed on the virtual device" ||
  echo "compute_$arch: $failed failed"
exit $((failed > 0))
