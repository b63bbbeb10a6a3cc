// What the sections of the report's page share.
#include "apps/report_page.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "apps/common/log.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();  // a cell that has not been run
}

// ---- reading cells ------------------------------------------------------------------------------

double number(const Cells& cells, const std::string& id, const std::string& path) {
  const auto cell = cells.find(id);
  if (cell == cells.end()) return kNaN;
  const Json& results = cell->second.at("results");
  const Json::json_pointer pointer(path);
  CENTROID_CHECK(results.contains(pointer) && results.at(pointer).is_number(), id,
                 ": expected a number at ", path, " of its results");
  return results.at(pointer).get<double>();
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return std::isnan(v); });
  if (values.empty()) return kNaN;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<double> times_of(const Cells& cells, const std::string& id, const std::string& key) {
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) {
    times.push_back(number(cells, id, concat("/", key, "/", i, "/seconds_taken")));
  }
  return times;
}

// ---- writing ------------------------------------------------------------------------------------

std::string text(double value, int digits) {
  return std::isnan(value) ? "not run" : short_number(value, digits);
}

std::string percent(double share) { return text(100 * share); }

std::string joined(const Words& words, const char* separator) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : separator) + word;
  return line;
}

void table(std::ostream& out, const Words& head, const std::vector<Words>& rows) {
  out << "\n| " << joined(head, " | ") << " |\n|---|";
  for (size_t i = 1; i < head.size(); ++i) out << "---:|";
  for (const Words& row : rows) out << "\n| " << joined(row, " | ") << " |";
  out << "\n";
}

void figure(Page& page, std::ostream& out, const std::string& name, const PlotSpec& spec) {
  bool any = false;
  for (const Panel& panel : spec.panels) {
    for (const Series& s : panel.series) {
      any = any || std::any_of(s.y.begin(), s.y.end(), [](double y) { return std::isfinite(y); });
    }
  }
  if (!any) return;
  page.figures[name] = line_plot(spec).png();
  out << "\n![" << spec.title << "](results/" << name << ")\n";
}

std::string cells_line(const Cells& cells, const std::string& part) {
  int have = 0, all = 0;
  double seconds = 0;
  for (const Cell& c : report_cells(false)) {
    if (!part.empty() && c.part() != part) continue;
    const auto found = cells.find(c.id);
    ++all;
    have += found != cells.end();
    if (found != cells.end()) seconds += found->second.at("seconds").get<double>();
  }
  return concat("\n", have, " of ", all, " cells have been run; they took ", clock_text(seconds),
                ".\n");
}

Axis axis(const std::string& label, bool log) { return {label, log, {}, {}}; }

}  // namespace centroid::apps
