#pragma once
// Shapes and strides: up to six dimensions in a fixed array, no allocation.
#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>
#include <vector>

namespace centroid {

inline constexpr int kMaxDims = 6;

/// A short list of sizes, strides or dimension numbers.
class Dims {
 public:
  Dims() = default;
  Dims(std::initializer_list<int64_t> values);
  explicit Dims(const std::vector<int64_t>& values);

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// `i` may count from the end: -1 is the last.
  int64_t& operator[](int i) { return values_[i < 0 ? i + size_ : i]; }
  int64_t operator[](int i) const { return values_[i < 0 ? i + size_ : i]; }
  const int64_t* begin() const { return values_.data(); }
  const int64_t* end() const { return values_.data() + size_; }
  int64_t* begin() { return values_.data(); }
  int64_t* end() { return values_.data() + size_; }
  int64_t back() const { return values_[size_ - 1]; }

  void push_back(int64_t value);             ///< throws beyond six dimensions
  void insert(int position, int64_t value);  ///< position in [0, size]
  void erase(int position);

  friend bool operator==(const Dims& a, const Dims& b);

 private:
  std::array<int64_t, kMaxDims> values_{};
  int size_ = 0;
};

using Shape = Dims;
using Strides = Dims;

/// Product of the sizes; 1 for a scalar.
int64_t numel(const Shape& shape);

/// Row-major strides, in elements; sizes of 0 count as 1.
Strides contiguous_strides(const Shape& shape);

/// `(8, 128, 64)`, `(5,)`, `()`.
std::string to_string(const Dims& dims);
std::ostream& operator<<(std::ostream& out, const Dims& dims);

/// NumPy's rule: sizes are matched from the right and must be equal or 1. Throws, naming `op` and
/// both shapes, otherwise.
Shape broadcast_shapes(const Shape& a, const Shape& b, const char* op);

/// Turns a dimension in [-ndim, ndim) into [0, ndim); throws, naming `op`, otherwise.
int normalize_dim(int dim, int ndim, const char* op);

}  // namespace centroid
