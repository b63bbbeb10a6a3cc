#include "nn/ngram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace centroid::nn {

using nlohmann::json;

namespace {
constexpr int64_t kMostProbabilities = 4'000'000;
}

void to_json(json& j, const NgramOptions& o) {
  j = json{{"order", o.order}, {"states", o.states}, {"smooth", o.smooth}};
}
void from_json(const json& j, NgramOptions& o) {
  j.at("order").get_to(o.order);
  j.at("states").get_to(o.states);
  j.at("smooth").get_to(o.smooth);
}

// The history before a label is the start of the sequence and the labels since, or the last order -
// 1 of them.
static auto count(const std::vector<std::vector<int32_t>>& sequences, int64_t symbols,
                  const NgramOptions& options) {
  std::map<std::vector<int32_t>, std::map<int32_t, int64_t>> counts;
  if (options.order == 0) return counts;
  CENTROID_CHECK(!sequences.empty(), "n-gram: expected at least one sequence to count, got none");
  for (const auto& sequence : sequences) {
    std::vector<int32_t> padded{0};
    padded.insert(padded.end(), sequence.begin(), sequence.end());
    for (int32_t label : sequence) {
      CENTROID_CHECK(label > 0 && label < symbols, "n-gram: label ", label,
                     ", expected one in [1, ", symbols, ")");
    }
    for (size_t i = 1; i <= padded.size(); ++i) {
      const size_t length = std::min<size_t>(i, options.order - 1);
      const std::vector<int32_t> history(padded.begin() + static_cast<std::ptrdiff_t>(i - length),
                                         padded.begin() + static_cast<std::ptrdiff_t>(i));
      ++counts[history][i < padded.size() ? padded[i] : 0];
    }
  }
  return counts;
}

Ngram::Ngram(const std::vector<std::vector<int32_t>>& sequences, int64_t symbols,
             const NgramOptions& options)
    : Ngram(count(sequences, symbols, options), symbols, options) {}

Ngram::Ngram(std::map<History, Counts> counts, int64_t symbols, const NgramOptions& options)
    : options_(options), symbols_(symbols), counts_(std::move(counts)) {
  CENTROID_CHECK(options.order >= 0 && options.order <= 8, "n-gram: order: expected 0 to 8, got ",
                 options.order);
  CENTROID_CHECK(options.states >= 0, "n-gram: states: expected 0 or more, got ", options.states);
  CENTROID_CHECK(symbols >= 1, "n-gram: expected symbols, got ", symbols);
  count_suffixes();
  choose_histories();
  CENTROID_CHECK(states() * symbols <= kMostProbabilities, "n-gram: ", states(), " histories of ",
                 symbols, " symbols make more than ", kMostProbabilities,
                 " probabilities (a lower order, or smaller units: phones or characters)");
  estimate();
}

void Ngram::count_suffixes() {
  for (const auto& [history, counts] : counts_) {
    for (size_t drop = 0; drop <= history.size(); ++drop) {
      Counts& all =
          by_history_[History(history.begin() + static_cast<std::ptrdiff_t>(drop), history.end())];
      for (const auto& [label, n] : counts) all[label] += n;
    }
  }
  by_history_[{}];  // there always, though nothing was counted
}

// A history was seen at most as often as its beginning and as its end, so that the most frequent
// ones, the shorter first, always come with both: every kept history can be reached.
void Ngram::choose_histories() {
  std::vector<std::pair<int64_t, const History*>> longer;
  for (const auto& [history, counts] : by_history_) {
    int64_t total = 0;
    for (const auto& [label, n] : counts) total += n;
    if (history.size() <= 1) {
      histories_.push_back(history);
    } else {
      longer.emplace_back(total, &history);
    }
  }
  std::stable_sort(longer.begin(), longer.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second->size() < b.second->size();
  });
  const size_t most = std::min<size_t>(longer.size(), options_.states);
  for (size_t i = 0; i < most; ++i) histories_.push_back(*longer[i].second);
  for (const auto& history : histories_) {
    states_.emplace(history, static_cast<int32_t>(states_.size()));
  }
  start_ = state_of({kEnd});
}

// The longest end of `history` that is kept.
int32_t Ngram::state_of(History history) const {
  const auto longest = static_cast<size_t>(std::max<int64_t>(options_.order - 1, 0));
  if (history.size() > longest) {
    history.erase(history.begin(), history.end() - static_cast<std::ptrdiff_t>(longest));
  }
  while (true) {
    const auto it = states_.find(history);
    if (it != states_.end()) return it->second;
    history.erase(history.begin());
  }
}

// Witten and Bell: with c(h) symbols seen after h, n(h) of them different,
//   P(w | h) = (c(h, w) + n(h) P(w | h without its oldest)) / (c(h) + n(h)),
// and below the empty history all labels and the end are alike.
void Ngram::estimate() {
  std::map<History, std::vector<double>> probs;  // in order of length, as shorter ones come first
  std::vector<const History*> order;
  for (const auto& entry : by_history_) order.push_back(&entry.first);
  std::stable_sort(order.begin(), order.end(),
                   [](const History* a, const History* b) { return a->size() < b->size(); });
  const double uniform = options_.order == 0 ? 1 : 1.0 / static_cast<double>(symbols_);
  for (const History* history : order) {
    if (!states_.contains(*history)) continue;
    const Counts& counts = by_history_.at(*history);
    double total = 0;
    for (const auto& [label, n] : counts) total += static_cast<double>(n);
    std::vector<double> p(symbols_, uniform);
    if (!history->empty()) p = probs.at(History(history->begin() + 1, history->end()));
    if (!counts.empty()) {
      const double kinds = options_.smooth ? static_cast<double>(counts.size()) : 0;
      for (double& value : p) value *= kinds / (total + kinds);
      for (const auto& [label, n] : counts) p[label] += static_cast<double>(n) / (total + kinds);
    }
    probs.emplace(*history, std::move(p));
  }
  for (const History& history : histories_) {
    for (int32_t label = 0; label < symbols_; ++label) {
      log_probs_.push_back(std::log(probs.at(history)[label]));
      History longer = history;
      longer.push_back(label);
      next_.push_back(label == kEnd ? -1 : state_of(std::move(longer)));
    }
  }
}

void to_json(json& j, const Ngram& model) {
  json counts = json::array();
  for (const auto& [history, after] : model.counts_) {
    for (const auto& [label, n] : after) counts.push_back({history, label, n});
  }
  j = json{{"options", model.options_}, {"symbols", model.symbols_}, {"counts", counts}};
}

Ngram Ngram::from(const json& j) {
  const auto options = j.at("options").get<NgramOptions>();
  const auto symbols = j.at("symbols").get<int64_t>();
  std::map<History, Counts> counts;
  for (const json& entry : j.at("counts")) {
    const auto history = entry.at(0).get<History>();
    const auto label = entry.at(1).get<int32_t>();
    const auto n = entry.at(2).get<int64_t>();
    bool good = label >= 0 && label < symbols && n > 0 && n < int64_t{1} << 40 &&
                static_cast<int64_t>(history.size()) < std::max<int64_t>(options.order, 1);
    for (int32_t h : history) good = good && h >= 0 && h < symbols;
    CENTROID_CHECK(good, "n-gram: expected [history, label, count] with labels in [0, ", symbols,
                   "), got ", entry.dump());
    counts[history][label] += n;
  }
  CENTROID_CHECK(options.order == 0 || !counts.empty(), "n-gram: expected counts, got none");
  return Ngram(std::move(counts), symbols, options);
}

}  // namespace centroid::nn
