#pragma once
// Argument checks shared by the raw operations.
#include <initializer_list>

#include "tensor/tensor.h"

namespace centroid::detail {

/// An argument and what the operation's documentation calls it.
struct Argument {
  const char* name;
  const Tensor& tensor;
};

/// Throws, naming `op`, unless the first argument is f32 or f64 and all others have its dtype and
/// device. Undefined tensors after the first are absent optional arguments.
inline void check_floats(const char* op, std::initializer_list<Argument> arguments) {
  const Argument& first = *arguments.begin();
  CENTROID_CHECK(first.tensor.defined(), op, ": ", first.name, ": expected a tensor, got none");
  const DType dtype = first.tensor.dtype();
  CENTROID_CHECK(dtype == DType::f32 || dtype == DType::f64, op, ": ", first.name,
                 ": expected f32 or f64, got ", dtype, " (raw::cast converts)");
  for (const Argument& other : arguments) {
    if (!other.tensor.defined()) continue;
    CENTROID_CHECK(other.tensor.dtype() == dtype, op, ": dtypes differ: ", first.name, " is ",
                   dtype, ", ", other.name, " is ", other.tensor.dtype(), " (raw::cast converts)");
    CENTROID_CHECK(other.tensor.device() == first.tensor.device(), op,
                   ": devices differ: ", first.name, " is on ", first.tensor.device(), ", ",
                   other.name, " on ", other.tensor.device(), " (raw::to moves)");
  }
}

/// Throws, naming `op`, unless `x` is defined and has this shape.
inline void check_shape(const char* op, const char* name, const Tensor& x, const Shape& shape) {
  CENTROID_CHECK(x.defined(), op, ": ", name, ": expected shape ", shape, ", got no tensor");
  CENTROID_CHECK(x.shape() == shape, op, ": ", name, ": expected shape ", shape, ", got ",
                 x.shape());
}

}  // namespace centroid::detail
