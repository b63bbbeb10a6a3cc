#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "apps/common/axis.h"
#include "apps/common/plot.h"
#include "tensor/error.h"

namespace centroid::apps {
namespace {

constexpr double kEdge = 20;       // free space at the borders of the picture
constexpr double kBarWidth = 18;   // of the colour bar
constexpr double kTokenSize = 12;  // letters of row and column tokens
constexpr double kTokenRow = 13;   // pixels that one token needs across its direction

// Evenly spaced colours of matplotlib's viridis (Smith and van der Walt; public domain).
constexpr std::array<Color, 11> kColors = {{{68, 1, 84},
                                            {72, 36, 117},
                                            {65, 68, 135},
                                            {53, 95, 141},
                                            {42, 120, 142},
                                            {33, 145, 140},
                                            {34, 168, 132},
                                            {68, 191, 112},
                                            {122, 209, 81},
                                            {189, 223, 38},
                                            {253, 231, 37}}};

struct Rect {
  double x0, y0, x1, y1;
  double width() const { return x1 - x0; }
  double height() const { return y1 - y0; }
};

/// Space around a matrix for its title, ticks and labels.
struct Margins {
  double left, top, right, bottom;
};

struct ColorRange {
  double low, high;
};

ColorRange color_range(const std::vector<const HeatmapSpec*>& specs) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const HeatmapSpec* spec : specs) {
    for (const float value : spec->values) {
      if (!std::isfinite(value)) continue;
      low = std::min(low, double(value));
      high = std::max(high, double(value));
    }
  }
  if (low > high) low = 0, high = 1;
  low = specs.front()->min.value_or(low);
  high = specs.front()->max.value_or(high);
  if (!(high > low)) high = low + (low == 0 ? 1 : std::fabs(low));
  return {low, high};
}

void check(const HeatmapSpec& s) {
  CENTROID_CHECK(s.rows > 0 && s.columns > 0, "heatmap '", s.title,
                 "': expected at least one row and one column, got ", s.rows, " x ", s.columns);
  CENTROID_CHECK(static_cast<int64_t>(s.values.size()) == s.rows * s.columns, "heatmap '", s.title,
                 "': expected ", s.rows, " x ", s.columns, " values, got ", s.values.size());
  CENTROID_CHECK(s.row_tokens.empty() || static_cast<int64_t>(s.row_tokens.size()) == s.rows,
                 "heatmap '", s.title, "': expected ", s.rows, " row tokens, got ",
                 s.row_tokens.size());
  CENTROID_CHECK(
      s.column_tokens.empty() || static_cast<int64_t>(s.column_tokens.size()) == s.columns,
      "heatmap '", s.title, "': expected ", s.columns, " column tokens, got ",
      s.column_tokens.size());
}

// The size of the matrix in the picture: square cells unless it is very long.
Point matrix_size(const HeatmapSpec& s, double longest) {
  const double ratio = double(s.rows) / double(s.columns);
  Point size;
  if (ratio > 0.34 && ratio < 3) {
    size = ratio > 1 ? Point{longest / ratio, longest} : Point{longest, longest * ratio};
  } else {
    size = ratio > 1 ? Point{longest * 0.45, longest * 1.2} : Point{longest * 1.5, longest * 0.5};
  }
  if (s.width > 0) size.x = s.width;
  if (s.height > 0) size.y = s.height;
  return {std::round(size.x), std::round(size.y)};
}

// The mean of the cells that pixel `i` of `pixels` covers is over [first, last).
std::pair<int64_t, int64_t> cells_of(int64_t i, int64_t pixels, int64_t cells) {
  const int64_t first = i * cells / pixels;
  return {first, std::max(first + 1, (i + 1) * cells / pixels)};
}

void draw_matrix(Canvas& canvas, const HeatmapSpec& s, const Rect& area, ColorRange range) {
  const auto width = static_cast<int64_t>(area.width()),
             height = static_cast<int64_t>(area.height());
  for (int64_t y = 0; y < height; ++y) {
    const auto [r0, r1] = cells_of(s.upwards ? height - 1 - y : y, height, s.rows);
    for (int64_t x = 0; x < width; ++x) {
      const auto [c0, c1] = cells_of(x, width, s.columns);
      double sum = 0;
      int64_t count = 0;
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) {
          const float value = s.values[static_cast<size_t>(r * s.columns + c)];
          if (!std::isfinite(value)) continue;
          sum += value;
          ++count;
        }
      }
      const double share =
          (sum / double(std::max<int64_t>(count, 1)) - range.low) / (range.high - range.low);
      canvas.blend(static_cast<int>(area.x0) + static_cast<int>(x),
                   static_cast<int>(area.y0) + static_cast<int>(y),
                   count > 0 ? map_color(share) : kGrey, 1);
    }
  }
}

// Every so manieth token is written where there is no room for all.
std::vector<Tick> token_ticks(const std::vector<std::string>& tokens, double pixels) {
  const double per_token = pixels / double(tokens.size());
  const auto every = static_cast<size_t>(std::max(1.0, std::ceil(kTokenRow / per_token)));
  std::vector<Tick> ticks;
  for (size_t i = 0; i < tokens.size(); i += every) {
    if (!tokens[i].empty()) ticks.push_back({double(i) + 0.5, tokens[i]});
  }
  return ticks;
}

Scale x_scale(const HeatmapSpec& s, double from, double to) {
  if (!s.column_tokens.empty()) return {0, double(s.columns), from, to};
  return {s.x_begin, s.x_begin + s.x_step * double(s.columns), from, to};
}

Scale y_scale(const HeatmapSpec& s, double top, double bottom) {
  const double from = s.upwards ? bottom : top, to = s.upwards ? top : bottom;
  if (!s.row_tokens.empty()) return {0, double(s.rows), from, to};
  return {s.y_begin, s.y_begin + s.y_step * double(s.rows), from, to};
}

std::vector<Tick> x_ticks(const HeatmapSpec& s, double width) {
  return s.column_tokens.empty() ? ticks_of(x_scale(s, 0, width), 70)
                                 : token_ticks(s.column_tokens, width);
}

std::vector<Tick> y_ticks(const HeatmapSpec& s, double height) {
  return s.row_tokens.empty() ? ticks_of(y_scale(s, 0, height), 45)
                              : token_ticks(s.row_tokens, height);
}

double widest_token(const std::vector<Tick>& ticks) {
  double width = 0;
  for (const Tick& tick : ticks) width = std::max(width, Canvas::text_width(tick.text, kTokenSize));
  return width;
}

Margins margins(const HeatmapSpec& s, Point size) {
  const double y_text =
      s.row_tokens.empty() ? widest(y_ticks(s, size.y)) : widest_token(y_ticks(s, size.y));
  const double x_text = s.column_tokens.empty() ? kTickSize : widest_token(x_ticks(s, size.x));
  return {y_text + 12 + (s.y_label.empty() ? 0 : 24), s.title.empty() ? 0.0 : 26, 0,
          x_text + 12 + (s.x_label.empty() ? 0 : 24)};
}

void draw_axes(Canvas& canvas, const HeatmapSpec& s, const Rect& area, const Margins& margin) {
  const Scale x = x_scale(s, area.x0, area.x1), y = y_scale(s, area.y0, area.y1);
  const bool tokens_x = !s.column_tokens.empty(), tokens_y = !s.row_tokens.empty();
  for (const Tick& tick : x_ticks(s, area.width())) {
    const double at = x(tick.value);
    canvas.fill_rect(at - 0.5, area.y1, at + 0.5, area.y1 + 4, kInk);
    if (tokens_x) {
      canvas.text({at, area.y1 + 7}, tick.text, kTokenSize, kInk, Anchor::right, true);
    } else {
      canvas.text({at, area.y1 + 14}, tick.text, kTickSize, kInk, Anchor::middle);
    }
  }
  for (const Tick& tick : y_ticks(s, area.height())) {
    const double at = y(tick.value);
    canvas.fill_rect(area.x0 - 4, at - 0.5, area.x0, at + 0.5, kInk);
    canvas.text({area.x0 - 8, at}, tick.text, tokens_y ? kTokenSize : kTickSize, kInk,
                Anchor::right);
  }
  const double middle_x = (area.x0 + area.x1) / 2, middle_y = (area.y0 + area.y1) / 2;
  canvas.text({middle_x, area.y1 + margin.bottom - 9}, s.x_label, kLabelSize, kInk, Anchor::middle);
  canvas.text({area.x0 - margin.left + 9, middle_y}, s.y_label, kLabelSize, kInk, Anchor::middle,
              true);
  canvas.text({middle_x, area.y0 - 13}, s.title, kLabelSize, kInk, Anchor::middle);
}

void draw_color_bar(Canvas& canvas, const Rect& area, ColorRange range, const std::string& label) {
  for (double y = area.y0; y < area.y1; ++y) {
    const Color color = map_color((area.y1 - 0.5 - y) / area.height());
    canvas.fill_rect(area.x0, y, area.x1, y + 1, color);
  }
  const Scale scale{range.low, range.high, area.y1, area.y0};
  const std::vector<Tick> ticks = ticks_of(scale, 45);
  for (const Tick& tick : ticks) {
    const double at = scale(tick.value);
    canvas.fill_rect(area.x1, at - 0.5, area.x1 + 4, at + 0.5, kInk);
    canvas.text({area.x1 + 8, at}, tick.text, kTickSize);
  }
  canvas.text({area.x1 + 8 + widest(ticks) + 18, (area.y0 + area.y1) / 2}, label, kLabelSize, kInk,
              Anchor::middle, true);
}

double color_bar_width(ColorRange range, double height, const std::string& label) {
  return kBarWidth + 8 + widest(ticks_of({range.low, range.high, height, 0}, 45)) +
         (label.empty() ? 0 : 28);
}

}  // namespace

Color map_color(double share) {
  if (!(share > 0)) share = 0;
  const double at = std::min(share, 1.0) * double(kColors.size() - 1);
  const auto i = std::min(static_cast<size_t>(at), kColors.size() - 2);
  const double t = at - double(i);
  const auto mix = [t](uint8_t a, uint8_t b) {
    return static_cast<uint8_t>(std::lround(a + t * (double(b) - a)));
  };
  const Color a = kColors[i], b = kColors[i + 1];
  return {mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
}

Canvas heatmap(const HeatmapSpec& spec) {
  check(spec);
  HeatmapSpec s = spec;
  const std::string title = std::move(s.title);  // in large letters over the whole picture
  s.title.clear();
  return heatmap_grid(title, {std::move(s)}, 1);
}

Canvas heatmap_grid(const std::string& title, const std::vector<HeatmapSpec>& cells, int per_row) {
  CENTROID_CHECK(!cells.empty() && per_row > 0,
                 "heatmap_grid: expected at least one matrix and one ", "column, got ",
                 cells.size(), " and ", per_row);
  std::vector<const HeatmapSpec*> all;
  Point size;
  Margins margin{0, 0, 0, 0};
  const double longest = cells.size() == 1 ? 620 : std::max(200.0, 330.0 - 20 * per_row);
  for (const HeatmapSpec& cell : cells) {
    check(cell);
    all.push_back(&cell);
    const Point wanted = matrix_size(cell, longest);
    size = {std::max(size.x, wanted.x), std::max(size.y, wanted.y)};
  }
  for (const HeatmapSpec& cell : cells) {
    const Margins own = margins(cell, size);
    margin = {std::max(margin.left, own.left), std::max(margin.top, own.top), 0,
              std::max(margin.bottom, own.bottom)};
  }
  const ColorRange range = color_range(all);
  const int columns = std::min(per_row, static_cast<int>(cells.size()));
  const int rows = (static_cast<int>(cells.size()) + columns - 1) / columns;
  const double step_x = margin.left + size.x + 22,
               step_y = margin.top + size.y + margin.bottom + 14;
  const double top = kEdge + (title.empty() ? 0 : 36);
  const double bar_left = kEdge + columns * step_x;
  const double bar_height = std::min(size.y, 420.0);
  const std::string& value_label = cells.front().value_label;
  const double bar_width = color_bar_width(range, bar_height, value_label);

  Canvas canvas(static_cast<int>(bar_left + bar_width + kEdge),
                static_cast<int>(top + rows * step_y - 14 + kEdge));
  const double left = kEdge + margin.left;
  canvas.text({(left + bar_left - 22) / 2, kEdge + 8}, title, kTitleSize, kInk, Anchor::middle);
  for (size_t i = 0; i < cells.size(); ++i) {
    const double x0 = std::round(left + double(i % static_cast<size_t>(columns)) * step_x);
    const double y0 =
        std::round(top + double(i / static_cast<size_t>(columns)) * step_y + margin.top);
    const Rect area{x0, y0, x0 + size.x, y0 + size.y};
    draw_matrix(canvas, cells[i], area, range);
    draw_axes(canvas, cells[i], area, margin);
  }
  const double bar_top = std::round(top + margin.top);
  draw_color_bar(canvas, {bar_left, bar_top, bar_left + kBarWidth, bar_top + bar_height}, range,
                 value_label);
  return canvas;
}

void heatmap(const HeatmapSpec& spec, const std::string& path) { heatmap(spec).save(path); }

void heatmap_grid(const std::string& title, const std::vector<HeatmapSpec>& cells, int per_row,
                  const std::string& path) {
  heatmap_grid(title, cells, per_row).save(path);
}

}  // namespace centroid::apps
