// curves.png from log.jsonl.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "apps/common/log.h"
#include "apps/common/plot.h"
#include "apps/common/run_folder.h"

namespace centroid::apps {
namespace {

// The mean over a window around each step, a twentieth of the curve wide and smaller at its ends.
std::vector<double> smoothed(const std::vector<double>& values) {
  const auto n = static_cast<int64_t>(values.size());
  std::vector<double> sums{0}, counts{0};
  for (const double value : values) {
    const bool finite = std::isfinite(value);
    sums.push_back(sums.back() + (finite ? value : 0));
    counts.push_back(counts.back() + finite);
  }
  std::vector<double> result;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t reach = std::min({n / 40, i, n - 1 - i});
    const auto first = static_cast<size_t>(i - reach), last = static_cast<size_t>(i + reach + 1);
    result.push_back((sums[last] - sums[first]) / (counts[last] - counts[first]));  // 0 / 0: a gap
  }
  return result;
}

bool is_loss(const std::string& name) { return name.ends_with("loss"); }

}  // namespace

bool draw_curves(const std::string& log, const std::string& png, const std::string& title) {
  std::vector<double> steps, losses, rates, norms;
  std::map<std::string, Series> evaluations;
  for (const auto& object : read_json_lines(log)) {
    const double step = logged_number(object, "step");
    const std::string event = object.value("event", "step");
    if (event == "step") {
      steps.push_back(step);
      losses.push_back(logged_number(object, "loss"));
      rates.push_back(logged_number(object, "lr"));
      norms.push_back(logged_number(object, "grad_norm"));
    } else if (event == "eval") {
      for (const auto& [name, value] : object.items()) {
        if (name == "step" || !(value.is_number() || value.is_string()) || name == "event")
          continue;
        Series& series = evaluations[name];
        series.label = name;
        series.x.push_back(step);
        series.y.push_back(logged_number(object, name));
      }
    }
  }
  if (steps.empty()) return false;

  PlotSpec plot{title, {"step", false, {}, {}}, {}};
  Panel loss{{"loss", false, {}, {}}, {}};
  if (steps.size() > 80) loss.series.push_back({"", steps, losses, true, 0});
  loss.series.push_back(
      {"training", steps, steps.size() > 80 ? smoothed(losses) : losses, false, 0});
  Panel metric{{"metric", false, {}, {}}, {}};
  int color = 1;
  for (auto& [name, series] : evaluations) {
    series.color = color++;
    (is_loss(name) ? loss : metric).series.push_back(series);
  }
  plot.panels.push_back(loss);
  if (!metric.series.empty()) {
    if (metric.series.size() == 1) {  // its name stands at the axis
      metric.y.label = std::exchange(metric.series.front().label, "");
    }
    plot.panels.push_back(metric);
  }
  Panel rate{{"learning rate", false, {}, {}}, {}};
  rate.series.push_back({"", steps, rates, false, 0});
  plot.panels.push_back(rate);
  if (std::any_of(norms.begin(), norms.end(), [](double x) { return x > 0; })) {
    Panel norm{{"gradient norm", true, {}, {}}, {}};  // spans decades: logarithmic
    if (steps.size() > 80) norm.series.push_back({"", steps, norms, true, 0});
    norm.series.push_back({"", steps, steps.size() > 80 ? smoothed(norms) : norms, false, 0});
    plot.panels.push_back(norm);
  }
  plot.panel_height = 220;
  line_plot(plot, png);
  return true;
}

}  // namespace centroid::apps
