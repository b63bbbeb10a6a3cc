#include "tensor/lengths.h"

#include <algorithm>
#include <numeric>

namespace centroid {

int64_t Lengths::max() const {
  return values_.empty() ? 0 : *std::max_element(values_.begin(), values_.end());
}

int64_t Lengths::sum() const { return std::accumulate(values_.begin(), values_.end(), int64_t{0}); }

Tensor Lengths::tensor(Device device) const {
  if (empty()) return {};
  if (!tensor_.defined() || tensor_.device() != device) {
    // Equal lengths, the usual case of none given, are filled in on the device: nothing is copied.
    const bool equal = std::equal(values_.begin() + 1, values_.end(), values_.begin());
    tensor_ = equal ? full({size()}, static_cast<double>(values_[0]), DType::i64, device)
                    : from_vector(values_, {size()}, device);
  }
  return tensor_;
}

void Lengths::check(int64_t batch, int64_t time, const char* what) const {
  if (empty()) return;
  CENTROID_CHECK(size() == batch, what, ": lengths: expected one per item, ", batch, ", got ",
                 size());
  for (int64_t b = 0; b < batch; ++b) {
    CENTROID_CHECK(values_[b] >= 0 && values_[b] <= time, what, ": length of item ", b,
                   ": expected 0 to ", time, ", got ", values_[b]);
  }
}

}  // namespace centroid
