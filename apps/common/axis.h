#pragma once
// Shared by the kinds of plots: sizes of letters, and where values lie on an axis.
#include <string>
#include <vector>

#include "apps/common/plot.h"

namespace centroid::apps {

inline constexpr double kTitleSize = 19, kLabelSize = 15, kTickSize = 13.5;

/// The colour of series number `index`; they repeat after seven.
Color palette_color(size_t index);

/// Maps values to pixels. `from` and `to` are the pixels of `low` and `high`.
struct Scale {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double operator()(double value) const;
};

/// A tick: its value and its text.
struct Tick {
  double value;
  std::string text;
};

/// Ticks of a scale, about one for every `spacing` pixels.
std::vector<Tick> ticks_of(const Scale& scale, double spacing);

/// The width of the widest text.
double widest(const std::vector<Tick>& ticks);

}  // namespace centroid::apps
