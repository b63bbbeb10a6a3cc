#!/usr/bin/env bash
# `make recogniser`: from recordings to a tuned recogniser, every step of docs/asr.md.
#   BIN=build/bin                    where the programs are
#   CENTROID_CACHE=DIR, FESTVOX_RU=DIR   as for `make demo`
#   RECOGNISER_OUT=DIR               results (default build/recogniser)
#   RECOGNISER_TRAIN_ARGS="..."      more options for `asr train`
set -euo pipefail
bin=${BIN:-build/bin}
out=${RECOGNISER_OUT:-build/recogniser}
. "$(dirname "$0")/festvox_ru.sh"

# Prints a command as one would type it, and runs it. What goes to stderr is the progress.
run() {
  printf '\n    $ %s\n' "${*//"$source"/DIR}"
  "$@" 2>>"$out/progress.log" | sed "s|$source|DIR|g; s/^/    /" ||
    fail "$(sed -n 's/^error: //p' "$out/progress.log" | tail -n 1) ($out/progress.log)"
}

source=$(festvox_ru)
mkdir -p "$out"
say "1. Recordings and their transcripts are checked and divided into sets"
run "$bin/asr" prepare --format festvox --source "$source" --split every-10th --out "$out/data"

say "2. A recogniser is trained; progress goes to $out/progress.log"
run "$bin/asr" train --preset auto --train "$out/data/train.jsonl" --dev "$out/data/dev.jsonl" \
  --vocab "$out/data/vocab.json" --keep-best 5 --out "$out/run" --overwrite \
  ${RECOGNISER_TRAIN_ARGS:-}

say "3. How good it is"
run "$bin/asr" eval --model "$out/run" --data "$out/data/test.jsonl" --show 1
run "$bin/asr" average --run "$out/run" --best 5 --out "$out/average.safetensors"
run "$bin/asr" eval --model "$out/average.safetensors" --data "$out/data/dev.jsonl"
run "$bin/asr" eval --model "$out/run" --data "$out/data/dev.jsonl"

say "4. A language model of its training sentences, weighed on the development set"
run "$bin/asr" lm --manifest "$out/data/train.jsonl" --unit phones --order 6 --out "$out/phones.arpa" \
  --test "$out/data/dev.jsonl" "$out/data/test.jsonl"
run "$bin/asr" tune --model "$out/run" --data "$out/data/dev.jsonl" --lm "$out/phones.arpa" \
  --beam 32 --out "$out/decoder.json"

say "5. Scores, and whether the language model makes a difference"
run "$bin/asr" eval --model "$out/run" --data "$out/data/test.jsonl" --hyp "$out/greedy.txt"
run "$bin/asr" eval --model "$out/run" --data "$out/data/test.jsonl" --beam 16
run "$bin/asr" eval --model "$out/run" --data "$out/data/test.jsonl" --decoder "$out/decoder.json" \
  --hyp "$out/tuned.txt"
run "$bin/asr" score "$out/data/test.jsonl" "$out/greedy.txt" --unit phones --confusions 5 \
  --versus "$out/tuned.txt"

say "6. When each phone was said, compared with the marks of the corpus"
run "$bin/asr" align --model "$out/run" --data "$out/data/dev.jsonl" --reference "$source/lab"
run "$bin/asr" align --model "$out/run" --data "$out/data/test.jsonl" --reference "$source/lab" \
  --out "$out/aligned" --format ctm,textgrid

say "7. Recordings without a transcript"
run "$bin/asr" transcribe --model "$out/run" --decoder "$out/decoder.json" --format srt \
  "$source/wav/ru_0025.wav"
