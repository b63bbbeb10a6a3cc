#pragma once
// What the sections of the report's page share: numbers out of cells, tables, figures.
#include <ostream>
#include <string>
#include <vector>

#include "apps/common/plot.h"
#include "apps/report.h"

namespace centroid::apps {

using Cells = std::map<std::string, Json>;

/// The number at a path below the results of a cell; NaN when the cell has not been run.
double number(const Cells& cells, const std::string& id, const std::string& path);
/// Of the values that are not NaN; NaN without any.
double median(std::vector<double> values);
/// NaN for none, and when one is.
double mean(const std::vector<double>& values);
/// The time of each of the three evaluations under `key`.
std::vector<double> times_of(const Cells& cells, const std::string& id, const std::string& key);

/// For tables; "not run" for NaN.
std::string text(double value, int digits = 3);
/// 0.1234 -> "12.3".
std::string percent(double share);
std::string joined(const Words& words, const char* separator);
/// Rows below a header; the first column is a name.
void table(std::ostream& out, const Words& head, const std::vector<Words>& rows);
/// Curves, unless there is nothing to draw.
void figure(Page& page, std::ostream& out, const std::string& name, const PlotSpec& spec);
/// How many cells of a part (empty: of all) there are, and what they took.
std::string cells_line(const Cells& cells, const std::string& part);
Axis axis(const std::string& label, bool log = false);

/// The sections about recognisers.
void render_recognisers(std::ostream& out, const Cells& cells);

}  // namespace centroid::apps
