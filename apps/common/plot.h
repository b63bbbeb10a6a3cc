#pragma once
// Line plots, bar plots and heat maps as PNG files.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/common/canvas.h"

namespace centroid::apps {

/// One curve. Points that are not finite (or not positive, on a logarithmic axis) interrupt it.
struct Series {
  std::string label;         ///< in the legend; none if empty
  std::vector<double> x, y;  ///< of the same length
  bool faint = false;        ///< thin and pale: a background for its smoothed version
  int color = -1;            ///< of the palette; -1 takes the next one
};

/// An axis; what is not given follows from the data.
struct Axis {
  std::string label;
  bool log = false;
  std::optional<double> min, max;
};

/// One diagram: curves over the common x axis.
struct Panel {
  Axis y;
  std::vector<Series> series;
};

/// Diagrams above each other that share the x axis.
struct PlotSpec {
  std::string title;
  Axis x;
  std::vector<Panel> panels;
  int width = 960;         ///< pixels
  int panel_height = 260;  ///< pixels, of each diagram
};

/// Draws `spec`. Throws if there is no panel, or if a series has x and y of different lengths.
Canvas line_plot(const PlotSpec& spec);
void line_plot(const PlotSpec& spec, const std::string& path);

/// Bars of several series on top of each other: bar i stands on [begin + i step, begin + (i + 1)
/// step).
struct BarSpec {
  struct Part {
    std::string label;           ///< in the legend; none if empty
    std::vector<double> values;  ///< finite and not negative; missing ones at the end are 0
  };
  std::string title, x_label, y_label;
  double begin = 0, step = 1;
  std::vector<Part> parts;  ///< the first one lowest
  int width = 960, height = 320;
};

/// Draws `spec`. Throws if there is no bar, or if a value is negative or not finite.
Canvas bar_plot(const BarSpec& spec);
void bar_plot(const BarSpec& spec, const std::string& path);

/// A matrix as colours. Cells that are not finite are grey.
struct HeatmapSpec {
  std::string title;
  int64_t rows = 0, columns = 0;
  std::vector<float> values;                                ///< (rows, columns)
  std::string x_label, y_label;                             ///< of the axes, with their unit
  double x_begin = 0, x_step = 1, y_begin = 0, y_step = 1;  ///< where cell i begins and its size
  bool upwards = false;                                ///< row 0 at the bottom, as in spectrograms
  std::vector<std::string> row_tokens, column_tokens;  ///< instead of numbers: one per row, column
  std::optional<double> min, max;                      ///< of the colours; the data's if not given
  std::string value_label;                             ///< of the colour bar, with its unit
  int width = 0, height = 0;                           ///< pixels of the matrix; 0: from its shape
};

/// Draws one matrix with axes and a colour bar. Throws if `values` is empty or of another size.
Canvas heatmap(const HeatmapSpec& spec);
void heatmap(const HeatmapSpec& spec, const std::string& path);

/// Draws matrices in rows of `per_row`, all with one colour scale and one colour bar. Each cell
/// keeps its title and its labels.
Canvas heatmap_grid(const std::string& title, const std::vector<HeatmapSpec>& cells, int per_row);
void heatmap_grid(const std::string& title, const std::vector<HeatmapSpec>& cells, int per_row,
                  const std::string& path);

/// The colour for `share` in [0, 1] of the range: dark blue over green to yellow.
Color map_color(double share);

/// Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], about `count` of them.
std::vector<double> nice_ticks(double low, double high, int count);
/// As `nice_ticks` for a logarithmic axis, 0 < low < high.
std::vector<double> log_ticks(double low, double high, int count);
/// The shortest text that tells ticks `step` apart from each other.
std::string tick_text(double value, double step);

}  // namespace centroid::apps
