#!/usr/bin/env bash
# Runs test programs one after another and closes with one line of totals.
# Usage: tests/run.sh PROGRAM...
set -u
passed=0 failed=0 broken=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program in "$@"; do
  echo "== $program"
  "$program" ${TEST_ARGS:-} 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  # Catch2 closes with "All tests passed (A assertions in T test cases)" or
  # "test cases: T | P passed | F failed"; a sanitizer may add a few lines.
  summary=$(tail -n 12 "$log")
  bad=0
  if [[ $summary =~ in\ ([0-9]+)\ test\ case ]]; then
    passed=$((passed + BASH_REMATCH[1]))
  elif [[ $summary =~ test\ cases:\ +([0-9]+)\ \| ]]; then
    total=${BASH_REMATCH[1]}
    [[ $summary =~ test\ cases:[^$'\n']*\ ([0-9]+)\ failed ]] && bad=${BASH_REMATCH[1]}
    passed=$((passed + total - bad)) failed=$((failed + bad))
  else
    echo "$program ended without a summary (exit $status)"
    broken=$((broken + 1))
    continue
  fi
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
    echo "$program passed its tests but ended with exit $status"
    broken=$((broken + 1))
  fi
done
echo "$passed passed, $((failed + broken)) failed"
[ $((failed + broken)) = 0 ]
