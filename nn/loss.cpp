#include "nn/loss.h"

#include <algorithm>

namespace centroid::nn {

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore, double smoothing,
                     Reduction reduction) {
  const Tensor total = sum(centroid::cross_entropy(logits, targets, ignore, smoothing));
  if (reduction == Reduction::sum) return total;
  const Tensor counted = raw::compare(Compare::ne, targets, static_cast<double>(ignore));
  const Tensor count = raw::sum(raw::cast(counted, DType::i64));
  if (count.device().kind != DeviceKind::cpu) return total / raw::cast(count, total.dtype());
  CENTROID_CHECK(count.item() > 0, "cross_entropy: no targets: all ", targets.numel(), " are ",
                 ignore, ", the value to ignore, so their mean is not defined");
  return total / count.item();
}

Tensor mse(const Tensor& a, const Tensor& b, Reduction reduction) {
  CENTROID_CHECK(a.shape() == b.shape(), "mse: shapes differ: a is ", a.shape(), ", b is ",
                 b.shape());
  CENTROID_CHECK(a.numel() > 0, "mse: nothing to compare: both are ", a.shape());
  const Tensor squares = square(a - b);
  return reduction == Reduction::sum ? sum(squares) : mean(squares);
}

int64_t ctc_min_frames(const std::vector<int32_t>& target) {
  int64_t frames = static_cast<int64_t>(target.size());
  for (size_t i = 1; i < target.size(); ++i) frames += target[i] == target[i - 1];
  return frames;
}

namespace {

// Throws for the first target that does not fit, or returns which fit.
std::vector<uint8_t> feasible_items(const std::vector<int64_t>& frames,
                                    const std::vector<std::vector<int32_t>>& targets,
                                    bool zero_infeasible) {
  std::vector<uint8_t> fits(targets.size());
  for (size_t b = 0; b < targets.size(); ++b) {
    const int64_t needed = ctc_min_frames(targets[b]);
    fits[b] = needed <= frames[b];
    CENTROID_CHECK(fits[b] || zero_infeasible, "ctc: item ", b, ": target of ", targets[b].size(),
                   " labels needs at least ", needed, " frames, got ", frames[b],
                   " (equal neighbours need a blank between them; subsample less, leave the item "
                   "out or set zero_infeasible)");
  }
  return fits;
}

// (B, U) i32; what fills up the rows is not read.
Tensor pad_targets(const std::vector<std::vector<int32_t>>& targets, Device device) {
  size_t longest = 1;
  for (const auto& target : targets) longest = std::max(longest, target.size());
  std::vector<int32_t> padded(targets.size() * longest);
  for (size_t b = 0; b < targets.size(); ++b) {
    std::copy(targets[b].begin(), targets[b].end(),
              padded.begin() + static_cast<std::ptrdiff_t>(b * longest));
  }
  const Shape shape{static_cast<int64_t>(targets.size()), static_cast<int64_t>(longest)};
  return from_vector(padded, shape, device);
}

}  // namespace

// An infeasible item has loss +inf and gradient 0; `where` replaces the inf, and the weights
// 1 / (B * target length) make the sum the documented mean.
Tensor ctc(const Tensor& logits, const Lengths& input_lengths,
           const std::vector<std::vector<int32_t>>& targets, const CtcOptions& options) {
  CENTROID_CHECK(logits.dim() == 3 && logits.size(0) >= 1,
                 "ctc: expected logits (B, T, V) with B at least 1, got ", logits.shape());
  const int64_t batch = logits.size(0), time = logits.size(1);
  CENTROID_CHECK(static_cast<int64_t>(targets.size()) == batch, "ctc: ", targets.size(),
                 " targets for a batch of ", batch);
  input_lengths.check(batch, time, "ctc");
  const std::vector<int64_t> frames =
      input_lengths.empty() ? std::vector<int64_t>(targets.size(), time) : input_lengths.values();
  const std::vector<uint8_t> fits = feasible_items(frames, targets, options.zero_infeasible);

  std::vector<int64_t> target_lengths;
  std::vector<double> weights;
  const bool mean = options.reduction == Reduction::mean;
  for (const auto& target : targets) {
    target_lengths.push_back(static_cast<int64_t>(target.size()));
    const double labels = static_cast<double>(std::max<size_t>(target.size(), 1));
    weights.push_back(mean ? 1 / (labels * static_cast<double>(batch)) : 1);
  }
  Tensor losses = centroid::ctc(logits, pad_targets(targets, logits.device()), Lengths(frames),
                                Lengths(target_lengths), options.blank);
  if (std::count(fits.begin(), fits.end(), 0) > 0) {
    losses = where(from_vector(fits, {batch}, logits.device()), losses,
                   zeros({batch}, logits.dtype(), logits.device()));
  }
  const Tensor factors = from_vector(weights, {batch}, logits.device());
  return sum(losses * raw::cast(factors, logits.dtype()));
}

}  // namespace centroid::nn
