// What bench attention says: tables, JSON and the figure.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>
#include <sstream>

#include "apps/bench.h"
#include "apps/bench_attention.h"
#include "apps/common/log.h"
#include "apps/common/plot.h"
#include "tensor/file.h"

namespace centroid::apps {

namespace {

using Json = nlohmann::ordered_json;
using Direction = AttentionTiming AttentionResult::*;
using Row = std::vector<std::string>;

constexpr int64_t kFlatFrom = 1024;  // where a constant time per token is looked for

double milliseconds(const AttentionTiming& timing) { return median(timing.seconds) * 1e3; }

double token_us(const AttentionResult& r, Direction direction) {
  return median((r.*direction).seconds) * 1e6 / static_cast<double>(r.batch * r.length);
}

// Multiply-adds of full attention: 2 products forward; with backward 7, as it forms the scores
// anew.
double full_flops(const AttentionSizes& s, const AttentionResult& r, Direction direction) {
  const double product = 2.0 * r.batch * s.heads * r.length * r.length * s.size;
  return product * (direction == &AttentionResult::forward ? 2 : 7) * (s.causal ? 0.5 : 1);
}

// The largest time per token over the smallest, from kFlatFrom on; none with less than two lengths.
std::optional<double> spread(const AttentionReport& report, const std::string& name, Direction d) {
  std::vector<double> times;
  for (const AttentionResult& r : report.results) {
    if (r.name == name && r.length >= kFlatFrom) times.push_back(token_us(r, d));
  }
  if (times.size() < 2) return {};
  const auto [low, high] = std::minmax_element(times.begin(), times.end());
  return *high / *low;
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string times_text(const std::optional<double>& value) {
  return value ? fixed(*value, 2) + "x" : "-";
}

// ---- tables -------------------------------------------------------------------------------------

// Rows below a header; all columns but the first `left` are flushed right.
std::string table(const std::vector<Row>& rows, size_t left, bool markdown) {
  std::vector<size_t> widths(rows[0].size(), 3);
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::ostringstream out;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string pad(widths[i] - rows[r][i].size(), ' ');
      out << (markdown ? "| "
              : i      ? "  "
                       : "")
          << (i < left ? rows[r][i] + pad : pad + rows[r][i]) << (markdown ? " " : "");
    }
    out << (markdown ? "|\n" : "\n");
    if (!markdown || r > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i) {
      out << "| " << std::string(widths[i] - 1, '-') << (i < left ? "-" : ":") << " ";
    }
    out << "|\n";
  }
  return out.str();
}

std::string timing_table(const AttentionReport& report, bool markdown) {
  std::vector<Row> rows = {{"L", "variant", "ms fwd", "ms fwd+bwd", "us/token fwd",
                            "us/token fwd+bwd", "x full fwd", "x full fwd+bwd", "memory fwd",
                            "memory fwd+bwd"}};
  for (const AttentionResult& r : report.results) {
    rows.push_back({std::to_string(r.length), r.name, fixed(milliseconds(r.forward), 2),
                    fixed(milliseconds(r.both), 2),
                    fixed(token_us(r, &AttentionResult::forward), 3),
                    fixed(token_us(r, &AttentionResult::both), 3),
                    times_text(speedup(report, r, &AttentionResult::forward)),
                    times_text(speedup(report, r, &AttentionResult::both)),
                    fixed(r.forward.extra_memory, 2), fixed(r.both.extra_memory, 2)});
  }
  return table(rows, 2, markdown);
}

std::string full_table(const AttentionReport& report, bool markdown) {
  std::vector<Row> rows = {{"full, L", "GFLOP/s fwd", "of peak", "GFLOP/s fwd+bwd", "of peak"}};
  for (const AttentionResult& r : report.results) {
    if (r.name != "full") continue;
    Row row = {std::to_string(r.length)};
    for (Direction d : {&AttentionResult::forward, &AttentionResult::both}) {
      const double flops = full_flops(report.sizes, r, d) / median((r.*d).seconds);
      row.push_back(fixed(flops / 1e9, 0));
      row.push_back(fixed(flops / report.peak_flops, 2));
    }
    rows.push_back(row);
  }
  return rows.size() > 1 ? table(rows, 0, markdown) : "";
}

std::string summary_table(const AttentionReport& report, bool markdown) {
  std::vector<Row> rows = {{"variant", "beats full from L, fwd", "fwd+bwd",
                            concat("us/token at L >= ", kFlatFrom, ", max/min, fwd"), "fwd+bwd"}};
  for (const BenchVariant& variant : report.variants) {
    Row row = {variant.name};
    for (Direction d : {&AttentionResult::forward, &AttentionResult::both}) {
      const auto from = crossover(report, variant.name, d);
      row.push_back(from ? std::to_string(*from) : "-");
    }
    for (Direction d : {&AttentionResult::forward, &AttentionResult::both}) {
      row.push_back(times_text(spread(report, variant.name, d)));
    }
    rows.push_back(row);
  }
  return table(rows, 1, markdown);
}

std::string check_line(const AttentionReport& report) {
  if (report.checks.empty()) return "Not checked (--no-check).";
  double output = 0, gradient = 0;
  for (const AttentionCheck& check : report.checks) {
    output = std::max(output, check.output);
    gradient = std::max(gradient, check.gradient);
  }
  return concat("Checked: f32 against f64 under the same choices, largest error ",
                short_number(output, 2), " of the output, ", short_number(gradient, 2),
                " of the gradients.");
}

// ---- the figure ---------------------------------------------------------------------------------

Panel panel_of(const AttentionReport& report, const std::string& label,
               const std::function<double(const AttentionResult&)>& value) {
  Panel panel;
  panel.y = {.label = label, .log = true, .min = {}, .max = {}};
  for (const BenchVariant& variant : report.variants) {
    Series series;
    series.label = variant.name;
    series.color = static_cast<int>(panel.series.size());
    series.faint = panel.series.size() >= 7;  // the palette's colours come a second time
    for (const AttentionResult& r : report.results) {
      if (r.name != variant.name) continue;
      series.x.push_back(static_cast<double>(r.length));
      series.y.push_back(value(r));
    }
    panel.series.push_back(std::move(series));
  }
  return panel;
}

void draw(const AttentionReport& report, const std::string& path) {
  PlotSpec spec;
  spec.title = concat("Attention on ", report.threads, " threads, ", report.sizes.heads,
                      " heads of ", report.sizes.size);
  spec.x = {.label = "length L", .log = true, .min = {}, .max = {}};
  spec.panels = {panel_of(report, "forward, us per token",
                          [](const auto& r) { return token_us(r, &AttentionResult::forward); }),
                 panel_of(report, "forward + backward, us per token",
                          [](const auto& r) { return token_us(r, &AttentionResult::both); }),
                 panel_of(report, "memory, x inputs and results",
                          [](const auto& r) { return r.both.extra_memory; })};
  spec.panel_height = 320;
  double legend = 160;  // pixels: wide enough for all names
  for (const BenchVariant& v : report.variants) legend += 48 + Canvas::text_width(v.name, 14);
  spec.width = static_cast<int>(std::clamp(legend, 960.0, 2400.0));
  line_plot(spec, path);
}

}  // namespace

// ---- the report ---------------------------------------------------------------------------------

const AttentionResult* AttentionReport::find(const std::string& name, int64_t length) const {
  for (const AttentionResult& r : results) {
    if (r.name == name && r.length == length) return &r;
  }
  return nullptr;
}

std::vector<int64_t> AttentionReport::lengths() const {
  std::set<int64_t> all;
  for (const AttentionResult& r : results) all.insert(r.length);
  return {all.begin(), all.end()};
}

std::optional<double> speedup(const AttentionReport& report, const AttentionResult& result,
                              Direction direction) {
  const AttentionResult* full = report.find("full", result.length);
  if (!full) return {};
  const std::vector<double>&ours = (result.*direction).seconds, &base = (full->*direction).seconds;
  std::vector<double> ratios;
  for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(base[i] / ours[i]);
  return median(ratios);
}

std::optional<int64_t> crossover(const AttentionReport& report, const std::string& name,
                                 Direction direction) {
  if (name == "full") return {};
  std::optional<int64_t> from;
  for (int64_t length : report.lengths()) {
    const AttentionResult* r = report.find(name, length);
    const auto ratio = r ? speedup(report, *r, direction) : std::nullopt;
    if (!ratio) continue;
    if (*ratio <= 1) {
      from.reset();
    } else if (!from) {
      from = length;
    }
  }
  return from;
}

std::string report_text(const AttentionReport& report, bool markdown) {
  const AttentionSizes& s = report.sizes;
  std::ostringstream out;
  if (markdown) out << "# Attention over the length\n\n";
  out << "f32, " << report.threads << " threads, " << s.heads << " heads of " << s.size
      << ", batch x length " << s.tokens << " (batch 1 beyond)" << (s.causal ? ", causal" : "")
      << "; inputs and output in (B, L, H, E) memory; medians of " << report.rounds
      << " interleaved rounds.\n"
      << report.kernels << "; peak " << fixed(report.peak_flops / 1e9, 0) << " GFLOP/s. "
      << check_line(report)
      << "\nMemory: the peak beyond q, k, v, output (and gradients), as a multiple of their "
         "size.\n\n"
      << timing_table(report, markdown) << "\n";
  const std::string full = full_table(report, markdown);
  if (!full.empty()) out << full << "\n";
  out << summary_table(report, markdown) << "\n";
  out << "Options:";
  for (const BenchVariant& variant : report.variants) {
    out << (&variant == &report.variants[0] ? " " : "; ") << variant.spec;
  }
  out << "\n";
  for (const std::string& note : report.notes) out << (markdown ? "\n" : "") << note << "\n";
  return out.str();
}

Json report_json(const AttentionReport& report) {
  const auto optional = [](const auto& value) { return value ? Json(*value) : Json(); };
  Json checks = Json::array(), results = Json::array(), summary = Json::array();
  for (const AttentionCheck& c : report.checks) {
    checks.push_back({{"variant", c.name},
                      {"output_error", c.output},
                      {"gradient_error", c.gradient},
                      {"exact_error", optional(c.exact)}});
  }
  for (const AttentionResult& r : report.results) {
    Json row = {{"variant", r.name}, {"length", r.length}, {"batch", r.batch}};
    const auto add = [&](const std::string& prefix, Direction d) {
      row[prefix + "_ms"] = milliseconds(r.*d);
      row[prefix + "_us_per_token"] = token_us(r, d);
      row[prefix + "_speedup"] = optional(speedup(report, r, d));
      row[prefix + "_extra_memory"] = (r.*d).extra_memory;
      if (r.name == "full") {
        row[prefix + "_gflops"] = full_flops(report.sizes, r, d) / median((r.*d).seconds) / 1e9;
      }
    };
    add("forward", &AttentionResult::forward);
    add("forward_backward", &AttentionResult::both);
    results.push_back(row);
  }
  for (const BenchVariant& v : report.variants) {
    Json row = {{"variant", v.name}, {"spec", v.spec}};
    const auto add = [&](const std::string& prefix, Direction d) {
      row[prefix + "_faster_from"] = optional(crossover(report, v.name, d));
      row[prefix + "_spread"] = optional(spread(report, v.name, d));
    };
    add("forward", &AttentionResult::forward);
    add("forward_backward", &AttentionResult::both);
    summary.push_back(row);
  }
  return {{"threads", report.threads},
          {"kernels", report.kernels},
          {"peak_gflops", report.peak_flops / 1e9},
          {"heads", report.sizes.heads},
          {"head_size", report.sizes.size},
          {"tokens", report.sizes.tokens},
          {"causal", report.sizes.causal},
          {"rounds", report.rounds},
          {"checks", checks},
          {"results", results},
          {"variants", summary},
          {"notes", report.notes}};
}

void make_report_folder(const std::string& folder) {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  CENTROID_CHECK(!problem, folder, ": cannot create the folder: ", problem.message());
}

void write_report(const AttentionReport& report, const std::string& folder) {
  const auto write = [&](const std::string& name, const std::string& text) {
    write_file_atomic(folder + "/" + name, text.data(), text.size());
  };
  write("attention.json", report_json(report).dump(2) + "\n");
  const bool picture = can_write_png();
  write("attention.md",
        report_text(report, true) + (picture ? "\n![time per token](attention.png)\n" : ""));
  if (picture) draw(report, folder + "/attention.png");
}

}  // namespace centroid::apps
