#pragma once
// How the kernels' results are judged: against the same sums done plainly, once in the tensor's own
// precision and once in long double.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/parallel.h"
#include "tests/support.h"

namespace centroid::test {

template <typename T>
std::vector<T> values(const Tensor& x) {
  const std::vector<double> all = doubles(x);
  return std::vector<T>(all.begin(), all.end());
}

/// Empty when `actual` errs by at most twice what the plain computation in T does, plus 4 ulp of
/// the largest magnitude; otherwise says by how much it does.
template <typename T>
std::string excess(const Tensor& actual, const std::vector<long double>& exact,
                   const std::vector<T>& plain) {
  const std::vector<T> got = actual.to_vector<T>();
  if (got.size() != exact.size() || got.size() != plain.size()) {
    return concat("sizes differ: ", got.size(), ", ", exact.size(), " and ", plain.size());
  }
  long double error = 0, allowed = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const long double e = std::fabs(got[i] - exact[i]);
    if (std::isnan(static_cast<double>(e))) return concat("NaN at ", i);
    error = std::max(error, e);
    allowed = std::max(allowed, std::fabs(plain[i] - exact[i]));
    largest = std::max(largest, std::fabs(exact[i]));
  }
  allowed = 2 * allowed + 4 * std::numeric_limits<T>::epsilon() * largest;
  return error <= allowed ? "" : concat("error ", error, ", allowed ", allowed);
}

/// Calls a reference, a function of a zero of its precision, in both precisions and judges
/// `actual`.
template <typename T, typename F>
std::string excess_of(const Tensor& actual, const F& reference) {
  return excess<T>(actual, reference(0.0L), reference(T(0)));
}

/// Whether f() gives the same bits with 1, 2 and 4 threads; f returns a list of tensors.
template <typename F>
bool same_on_any_threads(const F& f) {
  set_num_threads(1);
  const std::vector<Tensor> expected = f();
  bool same = true;
  for (int threads : {2, 4}) {
    set_num_threads(threads);
    const std::vector<Tensor> got = f();
    for (size_t i = 0; i < expected.size(); ++i) same = same && same_bits(got[i], expected[i]);
  }
  set_num_threads(0);
  return same;
}

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInf = std::numeric_limits<double>::infinity();

}  // namespace centroid::test
