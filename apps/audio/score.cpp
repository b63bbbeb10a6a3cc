#include "apps/audio/score.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

std::vector<AlignedPair> align(const std::vector<std::string>& ref,
                               const std::vector<std::string>& hyp, const AlignCosts& costs) {
  CENTROID_CHECK(std::min({costs.substitution, costs.deletion, costs.insertion}) >= 1,
                 "align: costs: expected at least 1 for every edit, got ", costs.substitution, "/",
                 costs.deletion, "/", costs.insertion);
  // The high half of a cost is what it says, the low half counts substitutions where they decide
  // between equals.
  constexpr int64_t kUnit = int64_t{1} << 32;
  const int64_t substitute = costs.substitution * kUnit + costs.fewest_substitutions;
  const int64_t remove = costs.deletion * kUnit, insert = costs.insertion * kUnit;
  const size_t n = ref.size(), m = hyp.size(), stride = m + 1;
  constexpr size_t kMost = size_t{1} << 32;  // bytes of the table
  CENTROID_CHECK(n < kMost / stride,
                 "align: expected transcripts of some ten thousand symbols, got ", n, " and ", m,
                 " (cut the recording into utterances)");
  // step(i, j): the last edit of the best alignment of the first i and j symbols.
  std::vector<Edit> steps((n + 1) * stride, Edit::insertion);
  std::vector<int64_t> previous(stride), row(stride);
  for (size_t j = 0; j <= m; ++j) row[j] = static_cast<int64_t>(j) * insert;
  for (size_t i = 1; i <= n; ++i) {
    std::swap(previous, row);
    row[0] = static_cast<int64_t>(i) * remove;
    steps[i * stride] = Edit::deletion;
    for (size_t j = 1; j <= m; ++j) {
      const bool same = ref[i - 1] == hyp[j - 1];
      const int64_t diagonal = previous[j - 1] + (same ? 0 : substitute);
      const int64_t deletion = previous[j] + remove, insertion = row[j - 1] + insert;
      row[j] = std::min({diagonal, deletion, insertion});
      Edit& step = steps[i * stride + j];
      if (row[j] == diagonal) {
        step = same ? Edit::match : Edit::substitution;
      } else if (row[j] != insertion) {
        step = Edit::deletion;
      }
    }
  }
  std::vector<AlignedPair> pairs;
  for (size_t i = n, j = m; i > 0 || j > 0;) {
    AlignedPair pair{steps[i * stride + j], "", ""};
    if (pair.edit != Edit::insertion) pair.ref = ref[--i];
    if (pair.edit != Edit::deletion) pair.hyp = hyp[--j];
    pairs.push_back(std::move(pair));
  }
  std::reverse(pairs.begin(), pairs.end());
  return pairs;
}

void ErrorRate::add(const std::vector<AlignedPair>& alignment) {
  const int64_t before = errors();
  for (const AlignedPair& pair : alignment) {
    substitutions += pair.edit == Edit::substitution;
    deletions += pair.edit == Edit::deletion;
    insertions += pair.edit == Edit::insertion;
    tokens += pair.edit != Edit::insertion;
  }
  ++utterances;
  wrong_utterances += errors() > before;
}

void Confusions::add(const std::vector<AlignedPair>& alignment) {
  for (const AlignedPair& pair : alignment) {
    if (pair.edit != Edit::match) ++counts_[{pair.edit, pair.ref, pair.hyp}];
  }
}

std::vector<Confusions::Entry> Confusions::most_frequent(Edit kind, size_t n) const {
  std::vector<Entry> entries;
  for (const auto& [key, count] : counts_) {
    if (std::get<0>(key) == kind) entries.push_back({std::get<1>(key), std::get<2>(key), count});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.count > b.count; });
  entries.resize(std::min(n, entries.size()));
  return entries;
}

ErrorRate& ErrorRate::operator+=(const ErrorRate& other) {
  substitutions += other.substitutions;
  deletions += other.deletions;
  insertions += other.insertions;
  tokens += other.tokens;
  utterances += other.utterances;
  wrong_utterances += other.wrong_utterances;
  return *this;
}

double ErrorRate::rate() const {
  if (tokens == 0) return errors() == 0 ? 0.0 : std::numeric_limits<double>::infinity();
  return static_cast<double>(errors()) / static_cast<double>(tokens);
}

std::string summary(const std::string& set, const std::string& name, const ErrorRate& r) {
  if (r.tokens == 0) {
    return set + " " + name + " undefined (no reference tokens; " + std::to_string(r.insertions) +
           " insertions)";
  }
  const auto percent = [&](int64_t count) {
    return 100.0 * static_cast<double>(count) / static_cast<double>(r.tokens);
  };
  char line[160];
  std::snprintf(line, sizeof line, " %.1f %% (sub %.1f del %.1f ins %.1f; %lld tokens)",
                percent(r.errors()), percent(r.substitutions), percent(r.deletions),
                percent(r.insertions), static_cast<long long>(r.tokens));
  return set + " " + name + line;
}

std::string format_alignment(const std::vector<AlignedPair>& alignment, int width) {
  const std::string labels[] = {"REF: ", "HYP: ", "OP:  "};
  std::string lines[3], out;
  int used = 0;
  const auto start = [&] {
    std::copy(std::begin(labels), std::end(labels), lines);
    used = 5;
  };
  const auto flush = [&] {
    for (std::string& line : lines) out += line.erase(line.find_last_not_of(' ') + 1) + "\n";
  };
  start();
  for (const AlignedPair& pair : alignment) {
    const int columns = std::max({1, display_width(pair.ref), display_width(pair.hyp)});
    if (used + columns > width && used > 5) {
      flush();
      out += "\n";
      start();
    }
    used += columns + 1;
    const std::string gap(columns, '*'), edit(1, static_cast<char>(pair.edit));
    const std::string cells[] = {pair.edit == Edit::insertion ? gap : pair.ref,
                                 pair.edit == Edit::deletion ? gap : pair.hyp, edit};
    for (int i = 0; i < 3; ++i) {
      lines[i] += cells[i] + std::string(columns - display_width(cells[i]) + 1, ' ');
    }
  }
  flush();
  return out;
}

}  // namespace centroid::audio
