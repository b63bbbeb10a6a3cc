#!/usr/bin/env bash
# The tests of the CUDA backend on a real device, and under compute-sanitizer where it is installed.
set -u
cd "$(dirname "$0")/.."
bin=build/device/bin
nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader ||
  { echo "NOT RUN, not passed: no NVIDIA GPU found"; exit 1; }
status=0
$bin/test_cuda || status=1
for layer in tensor autograd nn; do
  CENTROID_TEST_DEVICE=cuda $bin/test_$layer '~[host]~[.]' || status=1
done
if sanitizer=$(command -v compute-sanitizer); then
  for tool in memcheck racecheck synccheck initcheck; do
    CENTROID_ALLOC=system "$sanitizer" --tool $tool --error-exitcode 1 $bin/test_cuda || status=1
  done
else
  echo "compute-sanitizer not found: left out"
fi
exit $status
