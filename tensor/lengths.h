#pragma once
// Valid prefix lengths of a padded batch.
#include <vector>

#include "tensor/tensor.h"

namespace centroid {

/// One length per item of a batch, on the host, with a device copy made when first asked for. An
/// empty `Lengths` means that every position is valid.
class Lengths {
 public:
  Lengths() = default;
  Lengths(std::vector<int64_t> values) : values_(std::move(values)) {}  // NOLINT: reads naturally

  bool empty() const { return values_.empty(); }
  int64_t size() const { return static_cast<int64_t>(values_.size()); }
  int64_t operator[](int64_t b) const { return values_[b]; }
  const std::vector<int64_t>& values() const { return values_; }
  int64_t max() const;
  int64_t sum() const;

  /// (B) i64 on `device`; undefined when empty.
  Tensor tensor(Device device = default_device()) const;

  /// Throws, naming `what`, unless there is one length per item and each lies in [0, time].
  void check(int64_t batch, int64_t time, const char* what) const;

  friend bool operator==(const Lengths& a, const Lengths& b) { return a.values_ == b.values_; }

 private:
  std::vector<int64_t> values_;
  mutable Tensor tensor_;
};

}  // namespace centroid
