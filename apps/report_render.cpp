// The page of the report, made of the cells' JSON alone. Fixed text says what each part shows;
// every number that is not the paper's or part of the set-up is computed from cells.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <sstream>
#include <tuple>

#include "apps/report_page.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();  // a cell that has not been run

// ---- 1. scaling ---------------------------------------------------------------------------------

struct Measure {
  const char* key;  ///< in the results of bench
  double scale;     ///< to the unit of the page
  const char* title;
};
// Memory comes as a multiple of q, k, v, the output and their gradients: 8 times 6 x 64 floats.
constexpr Measure kForward{"forward_us_per_token", 1, "Forward, µs per token"},
    kStep{"forward_backward_us_per_token", 1, "Forward and backward, µs per token"},
    kMemory{
        "forward_backward_extra_memory", 8 * 6 * 64 * 4 / 1024.0,
        "Peak memory of forward and backward beyond inputs, output and gradients, KiB per token"};

double scaling_at(const Cells& cells, const Variant& v, int64_t length, const Measure& m) {
  const auto cell = cells.find(concat("scaling/L", length));
  if (cell == cells.end()) return kNaN;
  for (const Json& step : cell->second.at("results")) {
    for (const Json& row : step.at("results")) {
      if (row.at("variant") == v.attention) return m.scale * row.at(m.key).get<double>();
    }
  }
  return kNaN;
}

// The table of a measure; returns its curves.
Panel scaling_table(std::ostream& out, const Cells& cells, const Measure& m, const char* label) {
  out << "\n" << m.title << ":\n";
  Panel panel{axis(label, true), {}};
  Words head = {"L"};
  std::vector<Words> rows;
  for (int64_t length : kScalingLengths) rows.push_back({std::to_string(length)});
  for (const Variant& v : kScalingVariants) {
    head.push_back(v.name);
    Series series{v.name, {}, {}};
    for (size_t i = 0; i < rows.size(); ++i) {
      series.x.push_back(static_cast<double>(kScalingLengths[i]));
      series.y.push_back(scaling_at(cells, v, kScalingLengths[i], m));
      rows[i].push_back(text(series.y.back()));
    }
    panel.series.push_back(series);
  }
  table(out, head, rows);
  return panel;
}

// Where the curve of `v` falls below that of full attention: log-linear between two lengths.
std::string crossover(const Cells& cells, const Variant& v, const Measure& m) {
  double before = kNaN, last = 0;
  for (int64_t length : kScalingLengths) {
    const double gap = std::log(scaling_at(cells, v, length, m) /
                                scaling_at(cells, kScalingVariants[0], length, m));
    if (std::isnan(gap)) continue;
    if (gap <= 0 && std::isnan(before)) return concat("already at ", length);
    const double share = before / (before - gap);
    if (gap <= 0) return concat(std::lround(last * std::pow(length / last, share)));
    before = gap;
    last = static_cast<double>(length);
  }
  return std::isnan(before) ? "not run" : concat("not up to ", last);
}

void scaling(Page& page, std::ostream& out, const Cells& cells) {
  out << R"(
## 1. Time and memory over the length

One attention layer on random queries, keys and values (f32, 6 heads of 64, batch x length = 8192, batch 1
beyond), from and to memory (B, L, H, E); 63 bits, 10 iterations, top-k 32; all variants of a length take turns.
`full` is our own fused kernel and keeps nothing of size L x L, as the `full` of the paper does: a faster
opponent, and one that memory says little against. Beyond 8192 it is timed alone and once.
)" << cells_line(cells, "scaling");
  PlotSpec time{"Time per token", axis("length", true), {}};
  time.panels.push_back(scaling_table(out, cells, kForward, "forward, us"));
  time.panels.push_back(scaling_table(out, cells, kStep, "with backward, us"));
  PlotSpec memory{"Memory per token", axis("length", true), {}};
  memory.panels.push_back(scaling_table(out, cells, kMemory, "KiB"));
  figure(page, out, "scaling-time.png", time);
  figure(page, out, "scaling-memory.png", memory);
  out << "\nRead off these points, interpolated between lengths:\n";
  std::vector<Words> rows;
  for (const Variant& v : kScalingVariants) {
    if (v.name == "full") continue;
    rows.push_back({v.name});
    for (const Measure& m : {kForward, kStep}) {
      const double gain = scaling_at(cells, kScalingVariants[0], kLongestTurn, m) /
                          scaling_at(cells, v, kLongestTurn, m);
      rows.back().push_back(crossover(cells, v, m));
      rows.back().push_back(text(gain));
    }
    rows.back().push_back(
        text(scaling_at(cells, v, 65536, kStep) / scaling_at(cells, v, 1024, kStep)));
  }
  table(out,
        {"variant", "faster than full from L, forward", "times at 8192", "with backward",
         "times at 8192", "time per token at 65536 / 1024"},
        rows);
  out << R"(
The paper (GTX 1080 Ti, forward and backward, read off their figure): clustered-100 meets full at about 512,
improved clustered between 1024 and 2048; at 8192 they are 18.1 and 7.4 times faster than full, which runs out
of memory beyond.
)";
}

// ---- 2. masked copy -----------------------------------------------------------------------------

void copy(Page& page, std::ostream& out, const Cells& cells) {
  out << R"(
## 2. Masked copy

A random word is written twice, some symbols of either copy are masked and must be restored from the other:
exact look-up over half the length. Two layers, 4 heads of 16, width 64, top-k 32; trained until an
evaluation's loss is at most 0.005 nats, or for 3,000 steps, when the learning rate has come down to 0. Accuracy on fresh sequences in
%, over clusters (for reformer: rounds). The paper's supplement compares the same families on this task with
larger models.
)" << cells_line(cells, "copy");
  const auto accuracy = [&](const std::string& id) {
    return number(cells, "copy/" + id, "/test/accuracy");
  };
  std::vector<HeatmapSpec> maps;
  std::vector<Words> rows;
  Words head = {"length", "full"}, solved;
  for (int64_t length : kCopyLengths) {
    rows.push_back({std::to_string(length), text(100 * accuracy(concat("full/len", length)), 4)});
  }
  int runs = 0;
  for (const CopyFamily& f : kCopyFamilies) {
    HeatmapSpec map;
    map.title = f.name;
    map.rows = static_cast<int64_t>(kCopyLengths.size());
    map.columns = static_cast<int64_t>(f.settings.size());
    map.x_label = f.option;
    map.y_label = "length";
    map.min = 0, map.max = 100;
    map.value_label = "accuracy, %";
    map.width = map.height = 210;
    for (int64_t setting : f.settings) {
      head.push_back(concat(f.name, "-", setting));
      map.column_tokens.push_back(std::to_string(setting));
    }
    int good = 0, run = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      map.row_tokens.push_back(std::to_string(kCopyLengths[i]));
      for (int64_t setting : f.settings) {
        const double a = accuracy(concat(f.name, "/len", kCopyLengths[i], "/", f.letter, setting));
        rows[i].push_back(text(100 * a, 4));
        map.values.push_back(static_cast<float>(100 * a));
        good += a >= 0.99;
        run += !std::isnan(a);
      }
    }
    runs += run;
    solved.push_back(concat(f.name, " ", good, " of ", run));
    maps.push_back(map);
  }
  table(out, head, rows);
  if (runs == 0) return;
  page.figures["copy.png"] = heatmap_grid("Masked copy", maps, 3).png();
  out << "\n![accuracy over length and clusters or rounds](results/copy.png)\n\nSettings with at "
      << "least 99 %: " << joined(solved, ", ") << ".\n";
}

// ---- 3. speech ----------------------------------------------------------------------------------

struct SpeechPoint {
  std::string name;
  double rate, seconds;
};

void speech_summary(std::ostream& out, std::vector<SpeechPoint> points) {
  std::erase_if(points, [](const SpeechPoint& p) { return std::isnan(p.rate + p.seconds); });
  if (points.empty()) return;
  const auto beats = [](const SpeechPoint& a, const SpeechPoint& b) {
    return a.rate <= b.rate && a.seconds <= b.seconds && (a.rate < b.rate || a.seconds < b.seconds);
  };
  Words front;
  const SpeechPoint* best = &points[0];
  for (const SpeechPoint& p : points) {
    if (p.rate < best->rate) best = &p;
    if (std::none_of(points.begin(), points.end(), [&](const auto& q) { return beats(q, p); })) {
      front.push_back(p.name);
    }
  }
  out << "\nLowest error rate: " << best->name << ", " << percent(best->rate)
      << " %. Beaten by no other model in both rate and time: " << joined(front, ", ") << ".\n";
}

void speech(Page& page, std::ostream& out, const Cells& cells) {
  out << R"(
## 3. Speech: error rate against time

festvox-ru (one speaker, 496 sentences to train on, 62 to test), phone error rate (PER) after 1,000 steps: short
trainings, which longer ones would improve. Two frames of 10 ms per position, so that the average sentence has 480
positions and clusters can pay; with the demo's four it has 240, and attention is a small part of the work.
Seconds are those of one pass over the test set on all threads with everything that a recogniser does besides
attention: the median of three for each seed.
)" << cells_line(cells, "speech");
  std::vector<Words> rows;
  std::vector<SpeechPoint> points;
  PlotSpec spec{"Phone error rate against time", axis("seconds for the test set"), {}};
  spec.panels.push_back({axis("phone error rate, %"), {}});
  spec.panel_height = 420;
  auto& series = spec.panels[0].series;
  for (const SpeechModel& m : kSpeechModels) {
    Words row = {m.name};
    std::vector<double> rates, times;
    for (int64_t seed = 1; seed <= m.seeds; ++seed) {
      const std::string id = concat("speech/", m.name, "/seed", seed);
      const double rate = number(cells, id, "/test/0/rate");
      for (double t : times_of(cells, id, "test")) times.push_back(t);
      if (!std::isnan(rate)) rates.push_back(rate);
      row.push_back(percent(rate));
    }
    const SpeechPoint point{m.name, mean(rates), median(times)};
    row.resize(3, "-");
    row.push_back(percent(point.rate));
    row.push_back(text(point.seconds));
    rows.push_back(row);
    points.push_back(point);
    if (series.empty() || series.back().label != m.family) series.push_back({m.family, {}, {}});
    for (double gap : {0.0, kNaN}) {  // a point, not the next of a curve
      series.back().x.push_back(point.seconds + gap);
      series.back().y.push_back(100 * point.rate + gap);
    }
  }
  spec.x.min = 0;
  for (const SpeechPoint& p : points) {
    spec.x.max = std::max(spec.x.max.value_or(1), std::isnan(p.seconds) ? 0 : 1.1 * p.seconds);
  }
  table(out, {"model and layers", "PER %, seed 1", "seed 2", "mean", "seconds"}, rows);
  figure(page, out, "speech.png", spec);
  speech_summary(out, points);
  out << R"(
The paper (WSJ, 80 hours, read off their figure; 9 layers, 100 clusters or 4 rounds), seconds and PER: full 34.7
s, 5.14 %; improved clustered 20.9 s, 5.88 %; clustered 12.5 s, 7.24 %; Reformer 39.7 s, 9.32 %.

### Trained with one, evaluated with another

PER in %, seed 1, without retraining. `exact-topk-32` gives each query its 32 best keys and nothing else;
`local-clustered-50` 33 keys around it, and the rest as clustered; `multipole-128` its 4 best chunks of 32 alike keys, and
the rest as means of their chunks; `smyrf-4` 64 keys that hash near to it in each of 4 rounds. Improved-clustered
attention gives all queries of a cluster the same 32 keys exactly. The last three are not the paper's.
)";
  Words head = {"trained with"};
  rows.clear();
  for (const Variant& v : kSwapEvaluated) head.push_back(v.name);
  for (const std::string& trained : kSwapTrained) {
    rows.push_back({trained});
    for (const Variant& v : kSwapEvaluated) {
      const std::string id = concat("speech/eval/", trained, "-as-", v.name);
      rows.back().push_back(percent(number(cells, id, "/test/rate")));
    }
  }
  table(out, head, rows);
}

// ---- 4. long speech -----------------------------------------------------------------------------

void long_speech(std::ostream& out, const Cells& cells) {
  out << R"(
## 4. Long speech

Connected digits made of takes of FSDD, one speaker kept for the test. Trained for 1,000 steps on sequences of 3
to 8 s and for 250 on sequences of 5 to 60 s; tested on 10 minutes each of sequences of 10, 30 and 60 s, which are 500, 1,500 and 3,000 positions.
Word error rate (WER), and milliseconds to recognise a second of sound on all threads, median of three.
)" << cells_line(cells, "long");
  Words head = {"model"};
  for (const char* what : {"WER %, ", "ms per s, "}) {
    for (int64_t s : kLongSeconds) head.push_back(concat(what, s, " s"));
  }
  std::vector<Words> rows;
  std::vector<double> longest;
  for (const Variant& v : kLongVariants) {
    Words row = {v.name}, times;
    double cost = kNaN;
    for (int64_t s : kLongSeconds) {
      const std::string id = "long/" + v.name, key = concat(s, "s");
      row.push_back(percent(number(cells, id, "/" + key + "/0/rate")));
      cost =
          median(times_of(cells, id, key)) / number(cells, id, "/" + key + "/0/seconds_of_sound");
      times.push_back(text(1000 * cost));
    }
    row.insert(row.end(), times.begin(), times.end());
    rows.push_back(row);
    longest.push_back(cost);
  }
  table(out, head, rows);
  if (std::isnan(longest[0] / longest[1])) return;
  out << "\nAt " << kLongSeconds.back() << " s the whole recogniser is "
      << text(longest[0] / longest[1]) << " times as fast with " << kLongVariants[1].name
      << " as with full attention.\n";
}

// ---- 5. swapping --------------------------------------------------------------------------------

void swapping(Page& page, std::ostream& out, const Cells& cells) {
  out << R"(
## 5. Approximation without retraining

The recogniser full-l4 (seed 1) of part 3, its attention swapped for evaluation: C clusters and top-k k; k = 0 is
plain clustered attention. PER of the test set, and the row error: the mean l1 distance of rows of attention
weights from those of full attention on the same queries and keys (0 to 2; one sentence, all layers and heads).
)" << cells_line(cells, "swap");
  out << "\nPER with full attention: " << percent(number(cells, "swap/full", "/test/rate"))
      << " %.\n";
  Words head = {"C"};
  for (const char* what : {"PER %", "row error"}) {
    for (int64_t k : kSwapTopk) head.push_back(concat(what, ", k=", k));
  }
  std::vector<Words> rows;
  for (int64_t c : kSwapClusters) rows.push_back({std::to_string(c)});
  PlotSpec spec{"Swapped without retraining", axis("clusters", true), {}};
  for (const auto& [label, path, scale] :
       {std::tuple{"phone error rate, %", "/test/rate", 100.0},
        {"row error, l1", "/map/variants/0/row_error_mean", 1.0}}) {
    Panel panel{axis(label), {}};
    for (int64_t k : kSwapTopk) {
      Series series{k == 0 ? "clustered" : concat("improved, k=", k), {}, {}};
      for (size_t i = 0; i < rows.size(); ++i) {
        const std::string id = concat("swap/c", kSwapClusters[i], "-k", k);
        series.x.push_back(static_cast<double>(kSwapClusters[i]));
        series.y.push_back(scale * number(cells, id, path));
        rows[i].push_back(text(series.y.back()));
      }
      panel.series.push_back(series);
    }
    spec.panels.push_back(panel);
  }
  table(out, head, rows);
  figure(page, out, "swap.png", spec);
  out << R"(
The paper (a fine-tuned RoBERTa, 25 clusters, from the authors' page): SQuAD F1 0.904 with full attention, 0.006
with clustered, 0.876 with improved clustered; on GLUE improved clustered stays at the level of full.
)";
}

}  // namespace

Page render_page(const Cells& cells) {
  Page page;
  std::ostringstream out;
  out << R"(# Results

The experiments of "Fast Transformers with Clustered Attention" (Vyas, Katharopoulos and Fleuret, NeurIPS 2020)
at the size of a CPU, and after them recognisers of speech for their own sake. `make report` runs what is missing and writes this page. Every measured number comes from
a file in `docs/results/`, which also holds the commands that made it (`$WORK` is a scratch folder, `$SCRIPTS` is `apps`); those said
to be the paper's come from the paper. What cells took is added up, also where several ran side by side.
)" << cells_line(cells, "");
  std::set<std::string> machines;
  for (const auto& [id, cell] : cells) {
    const Json& m = cell.at("machine");
    const int threads = m.at("threads").get<int>(), training = m.value("training_threads", threads);
    const std::string trained = training == threads ? "" : concat(", trainings on ", training);
    machines.insert(concat(m.at("cpu").get<std::string>(), ", threads: ", threads, trained, ", ",
                           m.at("kernels").get<std::string>()));
  }
  for (const std::string& machine : machines) out << "Machine: " << machine << ".\n";
  scaling(page, out, cells);
  copy(page, out, cells);
  speech(page, out, cells);
  long_speech(out, cells);
  swapping(page, out, cells);
  render_recognisers(out, cells);
  page.markdown = out.str();
  return page;
}

}  // namespace centroid::apps
