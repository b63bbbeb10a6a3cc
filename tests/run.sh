#!/usr/bin/env bash
# Runs test programs one after another and closes with one line of totals.
# Usage: tests/run.sh PROGRAM...
set -u
passed=0 failed=0 broken=0
for program in "$@"; do
  echo "== $program"
  "$program" ${TEST_ARGS:-} 2>&1 | tee /dev/stderr | tail -n 12 >"${TMPDIR:-/tmp}/centroid-test.$$"
  status=${PIPESTATUS[0]}
  # Catch2 closes with "All tests passed (A assertions in T test cases)" or
  # "test cases: T | P passed | F failed".
  summary=$(cat "${TMPDIR:-/tmp}/centroid-test.$$")
  rm -f "${TMPDIR:-/tmp}/centroid-test.$$"
  if [[ $summary =~ in\ ([0-9]+)\ test\ case ]]; then
    passed=$((passed + BASH_REMATCH[1]))
  elif [[ $summary =~ test\ cases:\ +([0-9]+)\ \| ]]; then
    total=${BASH_REMATCH[1]} bad=0
    [[ $summary =~ test\ cases:[^$'\n']*\ ([0-9]+)\ failed ]] && bad=${BASH_REMATCH[1]}
    passed=$((passed + total - bad)) failed=$((failed + bad))
  else
    echo "$program ended without a summary (exit $status)"
    broken=$((broken + 1))
  fi
  [ "$status" = 0 ] || [ "$failed" -gt 0 ] || broken=$((broken + 1))
done
echo "$passed passed, $((failed + broken)) failed"
[ $((failed + broken)) = 0 ]
