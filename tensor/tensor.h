#pragma once
// The tensor: a strided, row-major view of shared memory with a runtime dtype, and optionally a
// place in autograd's history. Operations are free functions: `centroid::raw` (tensor/ops.h)
// computes and records nothing, `centroid` (autograd/ops.h) adds history.
#include <memory>
#include <string>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/storage.h"

namespace centroid {

struct Node;  // autograd's record of an operation; nothing in tensor/ looks inside

struct TensorImpl {
  std::shared_ptr<Storage> storage;
  int64_t offset = 0;  // of the first element, in elements
  Shape shape;
  Strides strides;  // in elements
  DType dtype = DType::f32;

  bool requires_grad = false;
  std::shared_ptr<TensorImpl> grad;
  std::shared_ptr<Node> grad_fn;  // the operation that made this tensor
  int grad_index = 0;             // which of its outputs this is
};

/// A cheap handle: copies share data and history; `raw::clone` copies data.
class Tensor {
 public:
  Tensor() = default;  ///< undefined: no shape, no data
  explicit Tensor(std::shared_ptr<TensorImpl> impl) : impl_(std::move(impl)) {}

  bool defined() const { return impl_ != nullptr; }
  const Shape& shape() const { return checked().shape; }
  const Strides& strides() const { return checked().strides; }
  int dim() const { return checked().shape.size(); }
  int64_t size(int dim) const;  ///< `dim` may count from the end; throws when out of range
  int64_t numel() const { return centroid::numel(checked().shape); }
  DType dtype() const { return checked().dtype; }
  Device device() const { return checked().storage->device; }
  bool is_contiguous() const;

  /// The first element. Throws when T is not the tensor's dtype. A handle's constness is not its
  /// data's: kernels write through `const Tensor&` outputs.
  template <typename T>
  T* data() const {
    check_dtype(dtype_of<T>());
    return static_cast<T*>(checked().storage->ptr) + impl_->offset;
  }
  /// The first element's bytes, whatever the dtype.
  std::byte* bytes() const;

  /// All elements in row-major order, copied to the host.
  template <typename T>
  std::vector<T> to_vector() const;

  /// The value of a one-element tensor; throws when there are more or T is not its dtype.
  template <typename T>
  T item() const {
    CENTROID_CHECK(numel() == 1, "item: expected one element, got shape ", shape());
    return to_vector<T>()[0];
  }
  /// The value of a one-element tensor of any numeric dtype.
  double item() const;

  // Autograd's side of a tensor.
  bool requires_grad() const { return defined() && impl_->requires_grad; }
  /// Marks a leaf as something to differentiate by; throws for integers and for results of ops.
  Tensor& set_requires_grad(bool value = true);
  Tensor grad() const { return Tensor(checked().grad); }
  void set_grad(const Tensor& grad) const { checked().grad = grad.impl_; }
  const std::shared_ptr<Node>& grad_fn() const { return checked().grad_fn; }
  /// The same data without history.
  Tensor detach() const;

  TensorImpl& impl() const { return checked(); }
  const std::shared_ptr<TensorImpl>& shared_impl() const { return impl_; }
  uint64_t version() const { return checked().storage->version; }
  /// Called by in-place functions: refuses tensors that have a history, then counts the change.
  void bump_version(const char* op) const;

 private:
  TensorImpl& checked() const {
    CENTROID_CHECK(impl_, "tensor: used before it was given a value");
    return *impl_;
  }
  void check_dtype(DType wanted) const;

  std::shared_ptr<TensorImpl> impl_;
};

/// Uninitialised memory. Throws for negative sizes and sizes that overflow.
Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = default_device());
Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = default_device());
Tensor ones(const Shape& shape, DType dtype = DType::f32, Device device = default_device());
Tensor full(const Shape& shape, double value, DType dtype = DType::f32,
            Device device = default_device());
/// 0, 1, ..., n-1 -> (n)
Tensor arange(int64_t n, DType dtype = DType::i64, Device device = default_device());
/// Copies host values; throws when their number is not that of the shape.
template <typename T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape,
                   Device device = default_device());

/// A view of `x`'s storage with another layout; the callers in tensor/ops.h check it.
Tensor view_of(const Tensor& x, int64_t offset, const Shape& shape, const Strides& strides);

namespace detail {
/// Copies bytes between any two devices; see cuda::copy_bytes.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
}  // namespace detail

/// As NumPy prints: nested brackets, aligned columns, long tensors elided.
std::string to_string(const Tensor& x);
std::ostream& operator<<(std::ostream& out, const Tensor& x);

}  // namespace centroid
