#include "apps/common/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace centroid::apps {
namespace {

double step_for(double span, int count) {
  const double rough = span / std::max(count, 1);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

}  // namespace

double Scale::operator()(double value) const {
  const double share =
      log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
  return from + share * (to - from);
}

std::vector<double> nice_ticks(double low, double high, int count) {
  std::vector<double> ticks;
  if (!(high > low) || !std::isfinite(high - low)) return ticks;
  const double step = step_for(high - low, count);
  const double slack = 1e-9 * (high - low);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; ++i) {
    ticks.push_back(i * step + 0.0);  // + 0.0 turns -0 into 0
  }
  return ticks;
}

std::vector<double> log_ticks(double low, double high, int count) {
  std::vector<double> ticks;
  if (!(low > 0) || !(high > low)) return ticks;
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  const double decades = std::log10(high / low);
  if (decades < 1) return nice_ticks(low, high, count);
  const int skip = std::max(1, static_cast<int>(std::ceil(decades / std::max(count, 1))));
  const bool fine = decades * 3 <= count;
  for (int e = first; e <= last; ++e) {
    if (e % skip != 0) continue;
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, e);
      if (factor > 1 && !fine) break;
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
    }
  }
  return ticks;
}

std::string tick_text(double value, double step) {
  if (std::fabs(value) < step * 1e-6) return "0";
  char text[40];
  const double size = std::fabs(value);
  const int places = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  if (size >= 1e5 && step >= 1e3) {
    const bool millions = size >= 1e6 && step >= 1e4;
    const double unit = millions ? 1e6 : 1e3;
    const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step / unit) + 1e-9)));
    std::snprintf(text, sizeof text, "%.*f%c", digits, value / unit, millions ? 'M' : 'k');
    return text;
  }
  if (places <= 3 && size < 1e6) {
    std::snprintf(text, sizeof text, "%.*f", places, value);
    return text;
  }
  const int exponent = static_cast<int>(std::floor(std::log10(size) + 1e-9));
  const int digits = std::max(0, exponent + places);
  const double mantissa = value / std::pow(10, exponent);
  std::snprintf(text, sizeof text, "%.*fe%d", std::min(digits, 6), mantissa, exponent);
  return text;
}

std::vector<Tick> ticks_of(const Scale& scale, double spacing) {
  const int count = std::max(2, static_cast<int>(std::fabs(scale.to - scale.from) / spacing));
  const std::vector<double> values = scale.log ? log_ticks(scale.low, scale.high, count)
                                               : nice_ticks(scale.low, scale.high, count);
  const bool even = !scale.log || scale.high < 10 * scale.low;
  std::vector<Tick> ticks;
  for (const double value : values) {
    double step = even && values.size() > 1 ? values[1] - values[0] : std::fabs(value);
    if (!even) step = std::pow(10, std::floor(std::log10(value) + 1e-9));
    ticks.push_back({value, tick_text(value, step > 0 ? step : 1)});
  }
  return ticks;
}

double widest(const std::vector<Tick>& ticks) {
  double width = 0;
  for (const Tick& tick : ticks) width = std::max(width, Canvas::text_width(tick.text, kTickSize));
  return width;
}

}  // namespace centroid::apps
