#!/usr/bin/env bash
# Runs what the README shows, in short form: the program of 30 lines against an installed library, and
# each command on small data. Needs the programs to be built; downloads nothing.
set -euo pipefail
bin=$(realpath "${CENTROID_BIN:-build/bin}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
check() {  # check NAME COMMAND...: runs it quietly, shows its output when it fails
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1))
    echo "ok    $name"
  else
    echo "FAILED $name: $*"
    cat "$work/log"
    echo "$passed passed, 1 failed"
    exit 1
  fi
}

# The C++ program of the README, compiled against `make install`, must print what the README says.
make --no-print-directory install PREFIX="$work/prefix" >/dev/null
awk '/^```cpp$/{on=1; next} /^```$/{on=0} on' README.md >"$work/example.cpp"
flags=$(PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig pkg-config --cflags --libs centroid)
check "README program compiles" g++ -O2 "$work/example.cpp" -o "$work/example" $flags
"$work/example" >"$work/got"
awk '/^```text example$/{on=1; next} /^```$/{on=0} on' README.md >"$work/expected"
check "README program prints what the README says" diff "$work/expected" "$work/got"

# Speech in miniature: tones stand in for recordings of letters.
check "make sounds" "$bin/make_tones" "$work/tones" 20
check "asr prepare" "$bin/asr" prepare --format table --source "$work/tones" \
  --transcripts "$work/tones/transcripts.tsv" --unit characters --out "$work/data"
check "asr train" "$bin/asr" train --rate 8000 --train "$work/data/train.jsonl" --dev "$work/data/dev.jsonl" \
  --vocab "$work/data/vocab.json" --out "$work/run" --steps 3 --width 16 --hidden 32 --layers 1 \
  --heads 2 --eval-every 2
check "asr eval" "$bin/asr" eval --model "$work/run" --data "$work/data/test.jsonl" --show 1
check "asr transcribe" "$bin/asr" transcribe --model "$work/run" "$work/tones/u00.wav"
check "asr align" "$bin/asr" align --model "$work/run" --data "$work/data/test.jsonl" --out "$work/aligned"
check "asr features" "$bin/asr" features --rate 8000 "$work/tones/u00.wav" --png "$work/spectrogram.png"
check "attention-map" "$bin/attention-map" --model "$work/run" --audio "$work/tones/u00.wav" \
  --out "$work/map.png"
check "copy train" "$bin/copy" train --task masked --length 16 --steps 3 --out "$work/copy"
check "copy train, causal" "$bin/copy" train --task causal --length 16 --steps 3 --out "$work/generate"
check "attention-map, side by side" "$bin/attention-map" --model "$work/run" \
  --audio "$work/tones/u00.wav" --attention full --attention improved-clustered:clusters=4,topk=4 \
  --out "$work/maps.png"
check "copy eval" "$bin/copy" eval --model "$work/copy" --batches 1
check "copy eval --generate" "$bin/copy" eval --model "$work/generate" --generate --check --batches 1
check "bench attention" "$bin/bench" attention --rounds 1 --lengths 32,64 --variants full,clustered
check "bench ops" "$bin/bench" ops --rounds 1 --mib 1
check "bench train" "$bin/bench" train --rounds 1 --batch 1 --time 100 --labels 10
echo "$passed passed, 0 failed"
