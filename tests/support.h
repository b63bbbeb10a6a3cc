#pragma once
// Helpers that the tests of all layers share. Header-only; needs nothing above tensor/.
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tensor/ops.h"
#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace centroid::test {

/// Standard normal values times `scale`, drawn on the host: no kernel is involved.
inline Tensor randn(const Shape& shape, Rng& rng, DType dtype = DType::f64, double scale = 1) {
  std::vector<double> values(numel(shape));
  for (double& v : values) v = scale * rng.normal();
  if (dtype == DType::f64) return from_vector(values, shape);
  CENTROID_CHECK(dtype == DType::f32, "randn: expected f64 or f32, got ", dtype);
  return from_vector(std::vector<float>(values.begin(), values.end()), shape);
}

/// Uniform values in [low, high).
inline Tensor randu(const Shape& shape, Rng& rng, double low = 0, double high = 1,
                    DType dtype = DType::f64) {
  std::vector<double> values(numel(shape));
  for (double& v : values) v = low + (high - low) * rng.uniform();
  if (dtype == DType::f64) return from_vector(values, shape);
  CENTROID_CHECK(dtype == DType::f32, "randu: expected f64 or f32, got ", dtype);
  return from_vector(std::vector<float>(values.begin(), values.end()), shape);
}

/// Uniform integers in [0, n), i64 or i32.
inline Tensor randint(const Shape& shape, int64_t n, Rng& rng, DType dtype = DType::i64) {
  std::vector<int64_t> values(numel(shape));
  for (int64_t& v : values) v = static_cast<int64_t>(rng.below(n));
  if (dtype == DType::i64) return from_vector(values, shape);
  CENTROID_CHECK(dtype == DType::i32, "randint: expected i64 or i32, got ", dtype);
  return from_vector(std::vector<int32_t>(values.begin(), values.end()), shape);
}

/// The same values in memory that is not contiguous: transposed for matrices and more, every second
/// element of a longer buffer for vectors.
inline Tensor strided(const Tensor& x) {
  if (x.dim() >= 2) return raw::transpose(raw::clone(raw::transpose(x, 0, -1)), 0, -1);
  if (x.dim() == 0) return x;
  const Tensor view = raw::slice(zeros({2 * x.size(0)}, x.dtype()), 0, 0, 2 * x.size(0), 2);
  raw::copy_(view, x);
  return view;
}

/// The elements of a tensor of any numeric dtype, row-major, as doubles.
inline std::vector<double> doubles(const Tensor& x) {
  return dispatch_numeric(x.dtype(), "doubles", [&]<typename T>() {
    const std::vector<T> values = x.to_vector<T>();
    return std::vector<double>(values.begin(), values.end());
  });
}

/// Empty when |a - b| <= atol + rtol |b| everywhere (equal infinities and two NaN agree); otherwise
/// says what differs and by how much: `CHECK(mismatch(a, b) == "")` prints it. Dtypes may differ.
inline std::string mismatch(const Tensor& a, const Tensor& b, double rtol = 1e-9,
                            double atol = 1e-9) {
  if (!a.defined() || !b.defined()) {
    return a.defined() == b.defined() ? "" : a.defined() ? "b is undefined" : "a is undefined";
  }
  if (a.shape() != b.shape()) return concat("shapes differ: ", a.shape(), " and ", b.shape());
  const std::vector<double> va = doubles(a), vb = doubles(b);
  size_t bad = 0, worst = 0;
  double worst_excess = -1;
  for (size_t i = 0; i < va.size(); ++i) {
    if (va[i] == vb[i] || (std::isnan(va[i]) && std::isnan(vb[i]))) continue;
    const double difference = std::fabs(va[i] - vb[i]);
    if (difference <= atol + rtol * std::fabs(vb[i])) continue;
    ++bad;
    const double excess = std::isnan(difference) ? INFINITY : difference;
    if (excess > worst_excess) worst_excess = excess, worst = i;
  }
  if (!bad) return "";
  std::ostringstream text;
  text.precision(17);
  text << bad << " of " << va.size() << " elements differ, the worst at " << worst << " of shape "
       << a.shape() << ": " << va[worst] << " and " << vb[worst];
  return text.str();
}

/// Compares with a list of values, in row-major order.
inline std::string mismatch(const Tensor& a, const std::vector<double>& values, double rtol = 1e-9,
                            double atol = 1e-9) {
  if (a.numel() != static_cast<int64_t>(values.size())) {
    return concat("expected ", values.size(), " values, got shape ", a.shape());
  }
  return mismatch(a, from_vector(values, a.shape()), rtol, atol);
}

/// Whether shape, dtype and every bit agree.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = raw::to(raw::contiguous(a), Device{}), y = raw::to(raw::contiguous(b), Device{});
  return std::memcmp(x.bytes(), y.bytes(), x.numel() * size_of(x.dtype())) == 0;
}

/// The text of the centroid::Error that `f` throws; says so when it throws nothing or something
/// else.
template <typename F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("<not a centroid::Error: ") + error.what() + ">";
  }
  return "<no error>";
}

/// A folder of its own below the system's temporary one, removed with its contents at the end.
class TempDir {
 public:
  TempDir() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            concat("centroid-test-", ::getpid(), "-", count.fetch_add(1));
    std::filesystem::create_directories(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all, ignored);
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// The path of a file in the folder.
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// A file's whole content; throws when it cannot be read.
inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  CENTROID_CHECK(file, path.string(), ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The repository: $CENTROID_ROOT, or the nearest folder upwards that holds the core's sources.
inline std::filesystem::path repository_root() {
  if (const char* root = std::getenv("CENTROID_ROOT")) return root;
  for (auto path = std::filesystem::current_path();; path = path.parent_path()) {
    if (std::filesystem::exists(path / "tensor" / "kernels.def")) return path;
    CENTROID_CHECK(path != path.parent_path(),
                   "tests: run them inside the repository, or set CENTROID_ROOT");
  }
}

}  // namespace centroid::test
