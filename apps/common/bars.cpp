// Bar plots.
#include <algorithm>
#include <cmath>

#include "apps/common/axis.h"
#include "apps/common/plot.h"
#include "tensor/error.h"

namespace centroid::apps {
namespace {

constexpr double kEdge = 22;  // free space at the borders of the picture

size_t bars_of(const BarSpec& spec) {
  size_t bars = 0;
  for (const BarSpec::Part& part : spec.parts) {
    bars = std::max(bars, part.values.size());
    for (const double value : part.values) {
      CENTROID_CHECK(std::isfinite(value) && value >= 0, "bar_plot: series '", part.label,
                     "': expected values >= 0, got ", value);
    }
  }
  CENTROID_CHECK(bars > 0, "bar_plot: expected at least one bar, got none");
  return bars;
}

double value_at(const BarSpec::Part& part, size_t i) {
  return i < part.values.size() ? part.values[i] : 0;
}

double height_of(const BarSpec& spec, size_t i) {
  double sum = 0;
  for (const BarSpec::Part& part : spec.parts) sum += value_at(part, i);
  return sum;
}

void draw_axes(Canvas& canvas, const BarSpec& spec, const Scale& x, const Scale& y) {
  for (const Tick& tick : ticks_of(y, 48)) {
    const double at = std::round(y(tick.value));
    canvas.fill_rect(x.from, at, x.to, at + 1, kGrid);
    canvas.text({x.from - 9, at + 0.5}, tick.text, kTickSize, kInk, Anchor::right);
  }
  for (const Tick& tick : ticks_of(x, 105)) {
    const double at = std::round(x(tick.value));
    canvas.fill_rect(at, y.from, at + 1, y.from + 5, kInk);
    canvas.text({at + 0.5, y.from + 17}, tick.text, kTickSize, kInk, Anchor::middle);
  }
  const double middle = (x.from + x.to) / 2;
  canvas.text({middle, kEdge + 4}, spec.title, kTitleSize, kInk, Anchor::middle);
  canvas.text({middle, y.from + 43}, spec.x_label, kLabelSize, kInk, Anchor::middle);
  canvas.text({kEdge + 4, (y.from + y.to) / 2}, spec.y_label, kLabelSize, kInk, Anchor::middle,
              true);
}

// Names with their colours above the diagram, aligned to the right.
void draw_legend(Canvas& canvas, const BarSpec& spec, const Scale& x, double middle) {
  double at = x.to;
  for (size_t i = spec.parts.size(); i-- > 0;) {
    const std::string& label = spec.parts[i].label;
    if (label.empty()) continue;
    at -= Canvas::text_width(label, kTickSize);
    if (at - 24 < x.from) return;  // no room: rather no name than two on top of each other
    canvas.text({at, middle}, label, kTickSize);
    canvas.fill_rect(at - 20, middle - 6, at - 8, middle + 6, palette_color(i));
    at -= 20 + 20;
  }
}

}  // namespace

Canvas bar_plot(const BarSpec& spec) {
  const size_t bars = bars_of(spec);
  CENTROID_CHECK(spec.step > 0 && std::isfinite(spec.step) && std::isfinite(spec.begin),
                 "bar_plot: expected a finite begin and a step above 0, got ", spec.begin, " and ",
                 spec.step);
  CENTROID_CHECK(spec.width >= 300 && spec.height >= 120, "bar_plot: expected at least 300 x 120 ",
                 "pixels, got ", spec.width, " x ", spec.height);
  double highest = 0;
  for (size_t i = 0; i < bars; ++i) highest = std::max(highest, height_of(spec, i));
  const double top = kEdge + (spec.title.empty() ? 0 : 34) + 18;
  const Scale y{0, highest > 0 ? 1.06 * highest : 1, top + spec.height, top, false};
  const double left = kEdge + 24 + widest(ticks_of(y, 48)) + 9;
  const Scale x{spec.begin, spec.begin + spec.step * static_cast<double>(bars), left,
                spec.width - kEdge - 8, false};

  Canvas canvas(spec.width, static_cast<int>(top + spec.height + 62));
  draw_axes(canvas, spec, x, y);
  for (size_t i = 0; i < bars; ++i) {
    const double from = std::round(x(spec.begin + spec.step * static_cast<double>(i)));
    const double to = std::round(x(spec.begin + spec.step * static_cast<double>(i + 1)));
    const double gap = to - from > 4 ? 1 : 0;
    double sum = 0;
    for (size_t part = 0; part < spec.parts.size(); ++part) {
      const double low = sum;
      sum += value_at(spec.parts[part], i);
      if (sum == low) continue;
      canvas.fill_rect(from + gap, std::round(y(sum)), to, std::round(y(low)), palette_color(part));
    }
  }
  canvas.fill_rect(x.from - 1, y.to, x.from, y.from + 1, kInk);
  canvas.fill_rect(x.from - 1, y.from, x.to, y.from + 1, kInk);
  draw_legend(canvas, spec, x, top - 11);
  return canvas;
}

void bar_plot(const BarSpec& spec, const std::string& path) { bar_plot(spec).save(path); }

}  // namespace centroid::apps
