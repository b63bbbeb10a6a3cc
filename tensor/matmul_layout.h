#pragma once
// How a strided matrix looks to BLAS: shared by raw::matmul, which copies what does not fit, and by
// the kernels, which rely on it.
#include <algorithm>
#include <cstdint>
#include <optional>

namespace centroid {

/// A matrix as BLAS takes it: rows of a row-major array, `ld` elements apart, or the transpose of
/// such an array.
struct MatrixLayout {
  bool transposed = false;
  int64_t ld = 1;
};

/// The layout of a (rows, cols) matrix with the given strides; nothing when neither stride is 1 or
/// rows overlap. The stride of a dimension of size 1 does not matter, and no stride of an empty
/// matrix.
inline std::optional<MatrixLayout> matrix_layout(int64_t rows, int64_t cols, int64_t row_stride,
                                                 int64_t col_stride) {
  const int64_t width = std::max<int64_t>(cols, 1), height = std::max<int64_t>(rows, 1);
  if (rows == 0 || cols == 0) return MatrixLayout{false, width};
  if (width == 1) col_stride = 1;
  if (height == 1) row_stride = col_stride == 1 ? width : 1;
  if (col_stride == 1 && row_stride >= width) return MatrixLayout{false, row_stride};
  if (row_stride == 1 && col_stride >= height) return MatrixLayout{true, col_stride};
  return std::nullopt;
}

}  // namespace centroid
