#include "nn/positional.h"

#include <cmath>

#include "nn/names.h"
#include "tensor/parallel.h"

namespace centroid::nn {

namespace {
const std::vector<std::string> kNames = {"none", "sinusoidal", "learned", "rotary"};
}

Positions parse_positions(const std::string& name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Positions>(i);
  }
  throw Error(
      concat("positions: expected one of ", nearest_first(kNames, name), ", got '", name, "'"));
}

const char* to_string(Positions positions) {
  return kNames[static_cast<size_t>(positions)].c_str();
}

Tensor sinusoidal_positions(int64_t time, int64_t width, int64_t first, Device device) {
  CENTROID_CHECK(width >= 2 && width % 2 == 0,
                 "sinusoidal positions: width: expected an even number, got ", width);
  const int64_t half = width / 2;
  const Tensor table = empty({time, width}, DType::f32, Device{});
  float* rows = table.data<float>();
  // Frequencies fall geometrically from 1 to 1/10000.
  const double step = half > 1 ? std::log(10000.0) / static_cast<double>(half - 1) : 0;
  parallel_for(0, time, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < half; ++i) {
      const double frequency = std::exp(-step * static_cast<double>(i));
      for (int64_t t = begin; t < end; ++t) {
        const double angle = static_cast<double>(first + t) * frequency;
        rows[t * width + i] = static_cast<float>(std::sin(angle));
        rows[t * width + half + i] = static_cast<float>(std::cos(angle));
      }
    }
  });
  return raw::to(table, device);
}

Tensor rotary_angles(int64_t time, int64_t head_size, double base, int64_t first, Device device) {
  CENTROID_CHECK(head_size >= 2 && head_size % 2 == 0,
                 "rotary positions: head size: expected an even number, got ", head_size);
  const int64_t half = head_size / 2;
  const Tensor angles = empty({time, half}, DType::f32, Device{});
  float* rows = angles.data<float>();
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(base, -static_cast<double>(i) / static_cast<double>(half));
    for (int64_t t = 0; t < time; ++t) {
      rows[t * half + i] = static_cast<float>(static_cast<double>(first + t) * frequency);
    }
  }
  return raw::to(angles, device);
}

Tensor PositionTable::rows(int64_t first, int64_t time, Device device, DType dtype) const {
  std::lock_guard lock(mutex_);
  const int64_t end = first + time;
  const int64_t known = table_.defined() ? table_.size(0) : 0;
  if (known < end || table_.device() != device || table_.dtype() != dtype) {
    // Longer: twice as long, as generation asks for one position more at each step.
    const int64_t wanted = known < end ? std::max(end, 2 * known) : known;
    table_ = raw::cast(make_(wanted, device), dtype);
  }
  return raw::slice(table_, 0, first, end);
}

PositionalEncoding::PositionalEncoding(Positions kind, int64_t width, int64_t max_length, Rng& rng)
    : kind_(kind), width_(width), sinusoidal_([width](int64_t time, Device device) {
        return sinusoidal_positions(time, width, 0, device);
      }) {
  CENTROID_CHECK(kind != Positions::sinusoidal || width % 2 == 0,
                 "sinusoidal positions: width: expected an even number, got ", width);
  if (kind != Positions::learned) return;
  CENTROID_CHECK(max_length >= 1, "learned positions: max_length: expected at least 1, got ",
                 max_length);
  table_ = raw::normal({max_length, width}, rng, 0, 0.02);
  add_parameter("table", table_);
}

Tensor PositionalEncoding::forward(const Tensor& x, int64_t first) const {
  CENTROID_CHECK(x.dim() == 3 && x.size(2) == width_, "positions: expected (B, T, ", width_,
                 "), got ", x.shape());
  const int64_t time = x.size(1), end = first + time;
  switch (kind_) {
    case Positions::none:
    case Positions::rotary: break;
    case Positions::sinusoidal: return x + sinusoidal_.rows(first, time, x.device(), x.dtype());
    case Positions::learned:
      CENTROID_CHECK(end <= table_.size(0), "learned positions: at most ", table_.size(0),
                     " positions, got ", end, " (raise max_length before training)");
      return x + slice(table_, 0, first, end);
  }
  return x;
}

}  // namespace centroid::nn
