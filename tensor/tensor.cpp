#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "tensor/kernels.h"

namespace centroid {

int64_t Tensor::size(int dim) const { return shape()[normalize_dim(dim, this->dim(), "size")]; }

bool Tensor::is_contiguous() const {
  if (numel() == 0) return true;
  int64_t step = 1;
  for (int i = dim() - 1; i >= 0; --i) {
    if (impl_->shape[i] != 1 && impl_->strides[i] != step) return false;
    step *= impl_->shape[i];
  }
  return true;
}

std::byte* Tensor::bytes() const {
  return static_cast<std::byte*>(checked().storage->ptr) + impl_->offset * size_of(impl_->dtype);
}

void Tensor::check_dtype(DType wanted) const {
  CENTROID_CHECK(dtype() == wanted, "data: tensor is ", dtype(), ", asked for as ", wanted,
                 " (raw::cast converts)");
}

template <typename T>
std::vector<T> Tensor::to_vector() const {
  check_dtype(dtype_of<T>());
  std::vector<T> values(numel());
  if (values.empty()) return values;
  Tensor dense = *this;
  if (!is_contiguous()) {
    dense = empty(shape(), dtype(), device());
    CENTROID_DISPATCH(device(), copy, *this, dense);
  }
  detail::copy_bytes(values.data(), {}, dense.bytes(), device(), values.size() * sizeof(T));
  return values;
}

double Tensor::item() const {
  return dispatch_numeric(dtype(), "item", [&]<typename T>() { return double(item<T>()); });
}

Tensor& Tensor::set_requires_grad(bool value) {
  CENTROID_CHECK(!value || is_float(dtype()), "requires_grad: expected a float tensor, got ",
                 dtype());
  CENTROID_CHECK(!grad_fn(), "requires_grad: expected a leaf, got the result of an operation");
  impl_->requires_grad = value;
  return *this;
}

Tensor Tensor::detach() const {
  auto impl = std::make_shared<TensorImpl>(checked());
  impl->requires_grad = false;
  impl->grad.reset();
  impl->grad_fn.reset();
  impl->grad_index = 0;
  return Tensor(std::move(impl));
}

void Tensor::bump_version(const char* op) const {
  CENTROID_CHECK(!grad_fn(), op, ": in-place change of the result of a recorded operation ",
                 "(use the form without `_`, or detach it first)");
  ++impl_->storage->version;
}

void detail::copy_bytes(void* to, Device to_device, const void* from, Device from_device,
                        size_t bytes) {
  if (bytes == 0) return;
  if (to_device.kind == DeviceKind::cpu && from_device.kind == DeviceKind::cpu) {
    std::memcpy(to, from, bytes);
  } else {
    cuda::copy_bytes(to, to_device, from, from_device, bytes);
  }
}

Tensor empty(const Shape& shape, DType dtype, Device device) {
  // Zeros are left out of this product: strides are computed from the other sizes all the same.
  int64_t n = 1;
  for (int64_t size : shape) {
    CENTROID_CHECK(size >= 0, "empty: negative size in shape ", shape);
    CENTROID_CHECK(!__builtin_mul_overflow(n, std::max<int64_t>(size, 1), &n), "empty: shape ",
                   shape, " has more elements than 64 bits count");
  }
  const int64_t limit = std::numeric_limits<int64_t>::max() / 8;
  CENTROID_CHECK(n <= limit, "empty: shape ", shape, " needs more bytes than 64 bits count");
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = std::make_shared<Storage>(numel(shape) * size_of(dtype), device);
  impl->shape = shape;
  impl->strides = contiguous_strides(shape);
  impl->dtype = dtype;
  return Tensor(std::move(impl));
}

Tensor full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor y = empty(shape, dtype, device);
  CENTROID_DISPATCH(device, fill, y, value);
  return y;
}

Tensor zeros(const Shape& shape, DType dtype, Device device) {
  return full(shape, 0, dtype, device);
}

Tensor ones(const Shape& shape, DType dtype, Device device) {
  return full(shape, 1, dtype, device);
}

Tensor arange(int64_t n, DType dtype, Device device) {
  Tensor y = empty({n}, dtype, device);
  CENTROID_DISPATCH(device, arange, y);
  return y;
}

template <typename T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape, Device device) {
  CENTROID_CHECK(static_cast<int64_t>(values.size()) == numel(shape), "from_vector: shape ", shape,
                 " needs ", numel(shape), " values, got ", values.size());
  Tensor y = empty(shape, dtype_of<T>(), device);
  detail::copy_bytes(y.bytes(), device, values.data(), {}, values.size() * sizeof(T));
  return y;
}

Tensor view_of(const Tensor& x, int64_t offset, const Shape& shape, const Strides& strides) {
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = x.impl().storage;
  impl->offset = offset;
  impl->shape = shape;
  impl->strides = strides;
  impl->dtype = x.dtype();
  return Tensor(std::move(impl));
}

#define CENTROID_INSTANTIATE(T)                         \
  template std::vector<T> Tensor::to_vector<T>() const; \
  template Tensor from_vector<T>(const std::vector<T>&, const Shape&, Device);
CENTROID_INSTANTIATE(double)
CENTROID_INSTANTIATE(float)
CENTROID_INSTANTIATE(Bf16)
CENTROID_INSTANTIATE(int64_t)
CENTROID_INSTANTIATE(int32_t)
CENTROID_INSTANTIATE(uint8_t)
#undef CENTROID_INSTANTIATE

}  // namespace centroid
