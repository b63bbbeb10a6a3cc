#pragma once
// Sorted positions cut into chunks of equal size, for the variants that sort instead of clustering.
#include "autograd/ops.h"

namespace centroid::nn {

/// 0, 1, ..., n - 1 as i32, in the shape given by the other sizes being 1.
inline Tensor counting(int64_t n, const Shape& shape, Device device) {
  return raw::reshape(arange(n, DType::i32, device), shape);
}

/// Valid lengths as (B, 1, 1) i32; n where none are given.
inline Tensor lengths_i32(const Lengths& lengths, int64_t batch, int64_t n, Device device) {
  const Lengths all = lengths.empty() ? Lengths(std::vector<int64_t>(batch, n)) : lengths;
  return raw::reshape(raw::cast(all.tensor(device), DType::i32), {batch, 1, 1});
}

/// sorted (B, H, N) i32, the valid positions first -> (B, H, ceil(N / size), size), -1 where there
/// is none.
inline Tensor cut_into_chunks(const Tensor& sorted, const Tensor& valid, int64_t size) {
  const int64_t batch = sorted.size(0), heads = sorted.size(1), n = sorted.size(2);
  const int64_t chunks = (n + size - 1) / size;
  const Tensor none = full({1}, -1, DType::i32, sorted.device());
  const Tensor rank = counting(n, {1, 1, n}, sorted.device());
  const Tensor kept = raw::where(raw::compare(Compare::lt, rank, valid), sorted, none);
  return raw::reshape(raw::pad(kept, 2, 0, chunks * size - n, -1), {batch, heads, chunks, size});
}

/// Where each of the chunks of `size` begins and ends: (B, H, chunks + 1) i32.
inline Tensor chunk_offsets(const Tensor& valid, int64_t heads, int64_t chunks, int64_t size) {
  const Tensor ends = raw::mul(counting(chunks + 1, {1, 1, chunks + 1}, valid.device()), size);
  return raw::contiguous(
      raw::expand(raw::minimum(ends, valid), {valid.size(0), heads, chunks + 1}));
}

}  // namespace centroid::nn
