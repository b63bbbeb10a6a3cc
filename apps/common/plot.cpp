#include "apps/common/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "apps/common/axis.h"
#include "tensor/error.h"

namespace centroid::apps {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kEdge = 22;       // free space at the borders of the picture
constexpr double kGap = 16;        // between two diagrams
constexpr size_t kFewPoints = 40;  // curves with at most so many points show them

constexpr std::array<Color, 7> kPalette = {{{31, 100, 180},
                                            {222, 98, 16},
                                            {34, 140, 84},
                                            {180, 44, 104},
                                            {112, 88, 190},
                                            {140, 104, 30},
                                            {20, 140, 160}}};

struct Range {
  double low = kInfinity, high = -kInfinity;
  void add(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return low > high; }
};

bool drawable(double value, const Axis& axis) {
  return std::isfinite(value) && (!axis.log || value > 0);
}

// The range of an axis for the data's; `margin` is the share to leave free on both sides.
Range settle(Range range, const Axis& axis, double margin) {
  if (range.empty()) range = axis.log ? Range{0.1, 1} : Range{0, 1};
  if (axis.log) {
    const double room = std::pow(range.high / range.low, margin);
    range = {range.low / room, range.high * room};
    if (range.high / range.low < 1.01) range = {range.low / 2, range.high * 2};
  } else {
    const bool positive = range.low >= 0;
    double room = (range.high - range.low) * margin;
    if (range.high == range.low) room = range.high == 0 ? 1 : std::fabs(range.high) / 2;
    range = {range.low - room, range.high + room};
    // Zero belongs into the picture when it is near.
    if (margin > 0 && positive && range.low < 0.3 * range.high) range.low = 0;
  }
  return {axis.min.value_or(range.low), axis.max.value_or(range.high)};
}

Color pale(Color color) {
  const auto mix = [](uint8_t v) { return static_cast<uint8_t>(v + (255 - v) * 0.62); };
  return {mix(color.r), mix(color.g), mix(color.b)};
}

Color color_of(const Panel& panel, size_t index) {
  int next = 0;
  for (size_t i = 0; i < index; ++i) next += panel.series[i].color < 0;
  const Series& series = panel.series[index];
  const int color = series.color < 0 ? next : series.color;
  const Color full = palette_color(static_cast<size_t>(color));
  return series.faint ? pale(full) : full;
}

// Liang-Barsky: the part of a segment inside the rectangle, or false.
bool clip(Point& a, Point& b, double x0, double y0, double x1, double y1) {
  double t0 = 0, t1 = 1;
  const double dx = b.x - a.x, dy = b.y - a.y;
  const auto cut = [&](double p, double q) {  // keeps the t with p * t <= q
    if (p == 0) return q >= 0;
    const double t = q / p;
    (p < 0 ? t0 : t1) = p < 0 ? std::max(t0, t) : std::min(t1, t);
    return t0 <= t1;
  };
  if (!cut(-dx, a.x - x0) || !cut(dx, x1 - a.x) || !cut(-dy, a.y - y0) || !cut(dy, y1 - a.y)) {
    return false;
  }
  const Point start = a;
  a = {start.x + t0 * dx, start.y + t0 * dy};
  b = {start.x + t1 * dx, start.y + t1 * dy};
  return true;
}

void draw_series(Canvas& canvas, const Series& series, Color color, const Axis& x_axis,
                 const Axis& y_axis, const Scale& x, const Scale& y) {
  std::vector<Polyline> pieces;
  const double left = x.from - 1, right = x.to + 1, top = y.to - 1, bottom = y.from + 1;
  size_t drawn = 0;
  Point before;
  bool connected = false;
  std::vector<Point> points;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!drawable(series.x[i], x_axis) || !drawable(series.y[i], y_axis)) {
      connected = false;
      continue;
    }
    const Point p{x(series.x[i]), y(series.y[i])};
    Point a = before, b = p;
    if (connected && clip(a, b, left, top, right, bottom)) pieces.push_back({a, b});
    if (p.x >= left && p.x <= right && p.y >= top && p.y <= bottom) points.push_back(p);
    before = p;
    connected = true;
    ++drawn;
  }
  canvas.strokes(pieces, series.faint ? 1.2 : 2.2, color);
  if (!series.faint && drawn <= kFewPoints) {
    for (const Point p : points) canvas.dot(p, 3.4, color);
  }
}

// A row of names with their colours above the diagram, aligned to the right.
void draw_legend(Canvas& canvas, const Panel& panel, double left, double right, double middle) {
  double at = right;
  for (size_t i = panel.series.size(); i-- > 0;) {
    const std::string& label = panel.series[i].label;
    if (label.empty()) continue;
    at -= Canvas::text_width(label, kTickSize);
    if (at - 30 < left) return;  // no room: rather no name than two on top of each other
    canvas.text({at, middle}, label, kTickSize);
    const double width = panel.series[i].faint ? 1.6 : 3;
    canvas.line({at - 28, middle}, {at - 9, middle}, width, color_of(panel, i));
    at -= 28 + 20;
  }
}

void draw_panel(Canvas& canvas, const PlotSpec& spec, const Panel& panel, const Scale& x,
                const Scale& y, bool last) {
  const double top = y.to, bottom = y.from;
  const std::vector<Tick> x_ticks = ticks_of(x, 105), y_ticks = ticks_of(y, 48);
  for (const Tick& tick : y_ticks) {
    const double at = std::round(y(tick.value));
    canvas.fill_rect(x.from, at, x.to, at + 1, kGrid);
    canvas.text({x.from - 9, at + 0.5}, tick.text, kTickSize, kInk, Anchor::right);
  }
  for (const Tick& tick : x_ticks) {
    const double at = std::round(x(tick.value));
    canvas.fill_rect(at, top, at + 1, bottom, kGrid);
    canvas.fill_rect(at, bottom, at + 1, bottom + 5, kInk);
    if (last) canvas.text({at + 0.5, bottom + 17}, tick.text, kTickSize, kInk, Anchor::middle);
  }
  for (size_t i = 0; i < panel.series.size(); ++i) {
    draw_series(canvas, panel.series[i], color_of(panel, i), spec.x, panel.y, x, y);
  }
  canvas.fill_rect(x.from - 1, top, x.from, bottom + 1, kInk);
  canvas.fill_rect(x.from - 1, bottom, x.to, bottom + 1, kInk);
  canvas.text({kEdge + 4, (top + bottom) / 2}, panel.y.label, kLabelSize, kInk, Anchor::middle,
              true);
  draw_legend(canvas, panel, x.from, x.to, top - 13);
}

}  // namespace

Color palette_color(size_t index) { return kPalette[index % kPalette.size()]; }

Canvas line_plot(const PlotSpec& spec) {
  CENTROID_CHECK(!spec.panels.empty(), "line_plot: expected at least one panel, got none");
  CENTROID_CHECK(spec.width >= 300 && spec.panel_height >= 120, "line_plot: expected at least 300 ",
                 "pixels of width and 120 of height per panel, got ", spec.width, " and ",
                 spec.panel_height);
  Range x_data;
  std::vector<Scale> y(spec.panels.size());
  const double title = spec.title.empty() ? 0 : 34;
  double top = kEdge + title - 8;
  for (size_t i = 0; i < spec.panels.size(); ++i) {
    const Panel& panel = spec.panels[i];
    Range y_data;
    for (const Series& s : panel.series) {
      CENTROID_CHECK(s.x.size() == s.y.size(), "line_plot: series '", s.label,
                     "': expected as many x as y, got ", s.x.size(), " and ", s.y.size());
      for (size_t k = 0; k < s.x.size(); ++k) {
        if (!drawable(s.x[k], spec.x) || !drawable(s.y[k], panel.y)) continue;
        x_data.add(s.x[k]);
        y_data.add(s.y[k]);
      }
    }
    const Range range = settle(y_data, panel.y, 0.06);
    top += 26;  // the legend's row
    y[i] = {range.low, range.high, top + spec.panel_height, top, panel.y.log};
    top += spec.panel_height + kGap;
  }
  const Range range = settle(x_data, spec.x, 0);
  double labels = 0;
  for (const Scale& scale : y) labels = std::max(labels, widest(ticks_of(scale, 48)));
  const double left = kEdge + 24 + labels + 9;
  const Scale x{range.low, range.high, left, spec.width - kEdge - 8, spec.x.log};

  Canvas canvas(spec.width, static_cast<int>(top - kGap + 62));
  canvas.text({(x.from + x.to) / 2, kEdge + 4}, spec.title, kTitleSize, kInk, Anchor::middle);
  for (size_t i = 0; i < spec.panels.size(); ++i) {
    draw_panel(canvas, spec, spec.panels[i], x, y[i], i + 1 == spec.panels.size());
  }
  canvas.text({(x.from + x.to) / 2, top - kGap + 43}, spec.x.label, kLabelSize, kInk,
              Anchor::middle);
  return canvas;
}

void line_plot(const PlotSpec& spec, const std::string& path) { line_plot(spec).save(path); }

}  // namespace centroid::apps
