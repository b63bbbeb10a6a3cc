#!/usr/bin/env bash
# Runs the tests that concern devices on the virtual CUDA device (tests/vgpu) with every check on, for
# PTX of compute_75 and compute_80. The kernels' own tests run with each tensor in memory of its own
# (CENTROID_ALLOC=system) and the order of threads, warps, blocks and streams drawn from three seeds.
set -u
cd "$(dirname "$0")/.."
bin=build/emulated/bin
export CENTROID_EMULATED=1 VGPU_MEMORY=2147483648
failed=0 log=$(mktemp) runs=$(mktemp -d)
trap 'rm -rf "$log" "$runs"' EXIT

run() { # settings... -- program arguments...: prints the last lines, all of them when it fails
  local settings=() begin=$SECONDS status
  while [ "$1" != -- ]; do settings+=("$1"); shift; done
  shift
  echo "== ${settings[*]}: ${*/$runs/RUNS}"
  env "${settings[@]}" "$@" > "$log" 2>&1 < /dev/null
  status=$?
  grep -v '^[=~.-]*$' "$log" | tail -n "$([ $status = 0 ] && echo 2 || echo 80)"
  echo "   $((SECONDS - begin)) s$([ $status = 0 ] || echo ", FAILED with exit $status")"
  [ $status = 0 ] || failed=$((failed + 1))
}

for arch in 75 80; do
  for seed in 0 1 2; do
    run VGPU_ARCH=$arch VGPU_SEED=$seed CENTROID_ALLOC=system -- $bin/test_cuda
  done
  run VGPU_ARCH=$arch -- $bin/test_cuda "cuda: a training step can be captured into a graph"
done
# The tests of every layer, whose tensors now lie on the device.
for layer in tensor autograd nn; do
  run VGPU_ARCH=80 CENTROID_TEST_DEVICE=cuda -- $bin/test_$layer '~[host]~[slow]~[.]'
done

# Short trainings by the programs: masked copies with clustered attention, stopped and resumed, and
# CTC and LF-MMI on a few utterances of tones.
small="--layers 1 --heads 2 --width 16 --hidden 32"
run VGPU_ARCH=80 -- $bin/copy train --device cuda --task masked --length 16 --batch 4 --steps 4 \
  --eval-every 0 --eval-batches 1 $small --attention improved-clustered:clusters=4,bits=16,topk=4 \
  --out "$runs/copy"
run VGPU_ARCH=75 -- $bin/copy eval --device cuda --model "$runs/copy" --batches 1 --batch 4
run VGPU_ARCH=80 -- build/bin/make_tones "$runs/tones" 8
run VGPU_ARCH=80 -- $bin/asr prepare --format table --source "$runs/tones" \
  --transcripts "$runs/tones/transcripts.tsv" --unit characters --out "$runs/data"
run VGPU_ARCH=80 -- $bin/asr train --device cuda --rate 8000 --train "$runs/data/train.jsonl" \
  --vocab "$runs/data/vocab.json" --batch-items 2 --steps 3 --subsampling 4 --channels 4 $small \
  --attention improved-clustered:clusters=4,bits=16,topk=4 --out "$runs/asr"
run VGPU_ARCH=80 -- $bin/asr train --device cuda --rate 8000 --train "$runs/data/train.jsonl" \
  --vocab "$runs/data/vocab.json" --batch-items 2 --steps 2 --subsampling 4 --channels 4 $small \
  --loss lfmmi --ngram-order 2 --out "$runs/lfmmi"

if [ $failed = 0 ]; then
  echo "all runs passed on the virtual device; nothing here ran on a GPU"
else
  echo "$failed runs FAILED on the virtual device"
fi
exit $((failed > 0))
