#include "tensor/shape.h"

#include <algorithm>

#include "tensor/error.h"

namespace centroid {

Dims::Dims(std::initializer_list<int64_t> values) {
  for (int64_t v : values) push_back(v);
}

Dims::Dims(const std::vector<int64_t>& values) {
  for (int64_t v : values) push_back(v);
}

void Dims::push_back(int64_t value) {
  CENTROID_CHECK(size_ < kMaxDims, "shape: at most ", kMaxDims, " dimensions, got more");
  values_[size_++] = value;
}

void Dims::insert(int position, int64_t value) {
  push_back(value);
  std::rotate(begin() + position, end() - 1, end());
}

void Dims::erase(int position) {
  std::copy(begin() + position + 1, end(), begin() + position);
  --size_;
}

bool operator==(const Dims& a, const Dims& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

int64_t numel(const Shape& shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

Strides contiguous_strides(const Shape& shape) {
  Strides strides = shape;
  int64_t step = 1;
  for (int i = shape.size() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= std::max<int64_t>(shape[i], 1);
  }
  return strides;
}

std::string to_string(const Dims& dims) {
  std::string text = "(";
  for (int i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + (dims.size() == 1 ? ",)" : ")");
}

std::ostream& operator<<(std::ostream& out, const Dims& dims) { return out << to_string(dims); }

Shape broadcast_shapes(const Shape& a, const Shape& b, const char* op) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  for (int i = 1; i <= shorter.size(); ++i) {
    const int64_t m = longer[-i], n = shorter[-i];
    CENTROID_CHECK(m == n || m == 1 || n == 1, op, ": shapes do not broadcast: a is ", a, ", b is ",
                   b, ": sizes ", a[-i], " and ", b[-i], " of dimension -", i,
                   " (equal sizes or 1 are needed)");
    result[-i] = m == 1 ? n : m;
  }
  return result;
}

int normalize_dim(int dim, int ndim, const char* op) {
  CENTROID_CHECK(dim >= -ndim && dim < ndim, op, ": dimension: expected one in [", -ndim, ", ",
                 ndim, "), got ", dim);
  return dim < 0 ? dim + ndim : dim;
}

}  // namespace centroid
