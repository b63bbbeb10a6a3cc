#include "apps/audio/context.h"

#include <algorithm>

#include "apps/audio/fields.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr auto kFields = [](auto& o, const auto& field) {
  field("order", o.order);
  field("window", o.window);
};

/// The filter of each order, `filter[k]` for j = k - order * window: the slope's coefficients
/// convolved with themselves.
std::vector<std::vector<double>> delta_filters(const DeltaOptions& o) {
  double squares = 0;
  for (int j = 1; j <= o.window; ++j) squares += 2.0 * j * j;
  std::vector<std::vector<double>> filters;
  std::vector<double> last = {1.0};
  for (int order = 1; order <= o.order; ++order) {
    std::vector<double> next(last.size() + 2 * o.window, 0.0);
    for (size_t i = 0; i < last.size(); ++i) {
      for (int j = -o.window; j <= o.window; ++j) {
        next[i + j + o.window] += j / squares * last[i];
      }
    }
    filters.push_back(last = next);
  }
  return filters;
}

}  // namespace

void validate(const DeltaOptions& o) {
  CENTROID_CHECK(o.order >= 0 && o.order <= 9, "deltas: order: expected 0..9, got ", o.order);
  CENTROID_CHECK(o.window >= 1 && o.window <= 1000, "deltas: window: expected 1..1000, got ",
                 o.window);
}

void to_json(nlohmann::json& json, const DeltaOptions& options) {
  json = write_fields(options, kFields);
}

void from_json(const nlohmann::json& json, DeltaOptions& options) {
  read_fields(json, options, kFields, "deltas");
  validate(options);
}

Features add_deltas(const Features& f, const DeltaOptions& options) {
  validate(options);
  if (options.order == 0) return f;
  const auto filters = delta_filters(options);
  Features out{f.frames, f.bins * (1 + options.order), {}};
  out.data.resize(static_cast<size_t>(out.frames * out.bins));
  std::vector<double> sum(f.bins);
  for (int64_t t = 0; t < f.frames; ++t) {
    float* to = std::copy(f.row(t), f.row(t) + f.bins, out.row(t));
    for (const auto& filter : filters) {
      const auto reach = static_cast<int64_t>(filter.size() / 2);
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t j = -reach; j <= reach; ++j) {
        const double weight = filter[j + reach];
        const float* from = f.row(std::clamp<int64_t>(t + j, 0, f.frames - 1));
        for (int64_t b = 0; b < f.bins; ++b) sum[b] += weight * from[b];
      }
      to = std::copy(sum.begin(), sum.end(), to);
    }
  }
  return out;
}

Features stack_frames(const Features& f, int64_t stack, int64_t stride) {
  CENTROID_CHECK(stack >= 1 && stride >= 1,
                 "stack_frames: expected stack and stride of 1 or more, got ", stack, " and ",
                 stride);
  Features out{(f.frames + stride - 1) / stride, f.bins * stack, {}};
  out.data.reserve(static_cast<size_t>(out.frames * out.bins));
  for (int64_t t = 0; t < out.frames; ++t) {
    for (int64_t s = 0; s < stack; ++s) {
      const float* from = f.row(std::min(t * stride + s, f.frames - 1));
      out.data.insert(out.data.end(), from, from + f.bins);
    }
  }
  return out;
}

}  // namespace centroid::audio
