#!/usr/bin/env bash
# `make demo`: real speech from the package archive, a recogniser trained on it, and what it does.
#   BIN=build/bin              where the programs are
#   CENTROID_CACHE=DIR         where the speech is kept (default ~/.cache/centroid)
#   FESTVOX_RU=DIR             use an unpacked festvox-ru instead of downloading one
#   DEMO_OUT=DIR               results (default build/demo)
#   DEMO_TRAIN_ARGS="..."      more options for `asr train`
set -euo pipefail
bin=${BIN:-build/bin}
out=${DEMO_OUT:-build/demo}
. "$(dirname "$0")/festvox_ru.sh"

SECONDS=0
say "1. Speech: one Russian speaker, 620 sentences, 1.66 hours"
source=$(festvox_ru)
"$bin/asr" prepare --format festvox --source "$source" --unit phones --split every-10th \
  --out "$out/data"

train() {  # train FOLDER OPTION...
  local folder=$1
  shift
  "$bin/asr" train --preset festvox-ru-demo --train "$out/data/train.jsonl" \
    --dev "$out/data/dev.jsonl" --vocab "$out/data/vocab.json" --out "$folder" --overwrite "$@"
}
# Seconds per step from the third on: the clock of log.jsonl starts with the training.
step_time() {
  sed -n 's/^{"step":\([0-9]*\),.*"time":\([0-9.]*\)}$/\1 \2/p' "$1/log.jsonl" |
    awk '$1 == 2 {begin = $2} {last = $2; n = $1} END {printf "%.3f", (last - begin) / (n - 2)}'
}

say "2. Which attention is faster at the length of these sentences?"
for attention in full improved-clustered; do
  train "$out/trial-$attention" --attention "$attention" --steps 22 >/dev/null 2>&1
done
full=$(step_time "$out/trial-full")
improved=$(step_time "$out/trial-improved-clustered")
attention=$(awk -v f="$full" -v i="$improved" 'BEGIN {print i < f ? "improved-clustered" : "full"}')
echo "a training step takes $full s with full and $improved s with improved-clustered attention:" \
  "training with $attention"

say "3. Training a recogniser of phones with CTC"
train "$out/run" --attention "$attention" ${DEMO_TRAIN_ARGS:-}

say "4. The 62 sentences it has never heard"
"$bin/asr" eval --model "$out/run" --data "$out/data/test.jsonl" --name test --show 3

say "5. One sound file"
wav=$source/wav/ru_0001.wav
echo "$wav:"
"$bin/asr" transcribe --model "$out/run" "$wav"

say "6. Pictures"
"$bin/asr" features "$wav" --png "$out/spectrogram.png"
"$bin/attention-map" --model "$out/run" --audio "$wav" --out "$out/attention.png"
"$bin/attention-map" --model "$out/run" --audio "$wav" --layers 0,3 --heads 0 --attention full \
  --attention clustered:clusters=25 --attention improved-clustered:clusters=25 \
  --attention local-clustered:clusters=25 --out "$out/variants.png"

say "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
cat <<TXT
  $out/run/best.safetensors   the recogniser (opens in Python's safetensors)
  $out/run/curves.png         loss, phone error rate and learning rate
  $out/run/log.jsonl          every step
  $out/spectrogram.png        what it hears
  $out/attention.png          where it looks
  $out/variants.png           where it would look with other attention
What to try next:
  $bin/asr transcribe --model $out/run --times YOUR.wav
  $bin/asr train --preset festvox-ru --train $out/data/train.jsonl --dev $out/data/dev.jsonl \\
      --vocab $out/data/vocab.json --out long-run     # about twice as long, clearly better
  $bin/copy train --task masked --length 128 --out copy-run
  docs/asr-data.md            your own recordings
TXT
