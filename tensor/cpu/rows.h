#pragma once
// What the kernels over rows have in common.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "tensor/functors.h"

namespace centroid::cpu {

/// Rows of `n` elements per chunk of parallel work.
inline int64_t row_grain(int64_t n) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, n));
}

/// The largest of `n` elements, ignoring NaN; -inf when there is none.
template <typename T>
T row_max(const T* x, int64_t n) {
  T most = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

/// y = e^(scale * x - shift); returns the sum. x and y may be the same row.
template <typename T>
T row_exp(const T* x, T scale, T shift, T* y, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const T e = math::exp(scale * x[i] - shift);
    y[i] = e;
    sum += e;
  }
  return sum;
}

/// The sum of e^(x - shift).
template <typename T>
T row_sum_exp(const T* x, T shift, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += math::exp(x[i] - shift);
  return sum;
}

template <typename T>
T row_sum(const T* x, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

template <typename T>
T row_dot(const T* a, const T* b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace centroid::cpu
