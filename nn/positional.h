#pragma once
// Where in a sequence a position is: sinusoidal, learned and rotary.
#include <functional>
#include <mutex>

#include "nn/layers.h"

namespace centroid::nn {

enum class Positions { none, sinusoidal, learned, rotary };
/// The kind of that name; throws, listing the valid names, otherwise.
Positions parse_positions(const std::string& name);
const char* to_string(Positions positions);

/// (T, C) f32: sin in the first half of the width and cos in the second, wavelengths from 2 pi to
/// 10000 * 2 pi (Vaswani et al., 2017). The first row is that of position `first`. Throws unless C
/// is even.
Tensor sinusoidal_positions(int64_t time, int64_t width, int64_t first = 0,
                            Device device = default_device());

/// Angles (T, E / 2) f32 of rotary positions: t / base^(2i / E) (Su et al., "RoFormer", 2021), t
/// counting from `first`. Throws unless E is even.
Tensor rotary_angles(int64_t time, int64_t head_size, double base = 10000, int64_t first = 0,
                     Device device = default_device());

/// Rows of a table of positions, made once for all positions up to the last one asked for, on the
/// device and in the dtype that were asked for last: a training step then neither computes nor
/// copies them. Thread-safe.
class PositionTable {
 public:
  using Make = std::function<Tensor(int64_t time, Device device)>;  ///< rows 0 .. time - 1
  explicit PositionTable(Make make) : make_(std::move(make)) {}
  /// Rows first .. first + time - 1.
  Tensor rows(int64_t first, int64_t time, Device device, DType dtype) const;

 private:
  Make make_;
  mutable std::mutex mutex_;
  mutable Tensor table_;
};

/// Adds positions to a sequence: x (B, T, C) -> (B, T, C). `none` and `rotary` (which acts on
/// queries and keys) return x. Learned positions throw beyond `max_length`.
class PositionalEncoding : public Module {
 public:
  PositionalEncoding(Positions kind, int64_t width, int64_t max_length, Rng& rng);
  /// `first` is the position of x's first row: not 0 when a sequence comes in pieces.
  Tensor forward(const Tensor& x, int64_t first = 0) const;

 private:
  Positions kind_;
  int64_t width_;
  Tensor table_;  // (max_length, C), learned
  PositionTable sinusoidal_;
};

}  // namespace centroid::nn
