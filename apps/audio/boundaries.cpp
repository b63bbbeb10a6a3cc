#include "apps/audio/boundaries.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <tuple>

#include "apps/audio/ctm.h"
#include "apps/audio/score.h"
#include "apps/audio/textgrid.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// The mean of the two middle values where their number is even.
double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return 0.5 * (values[(n - 1) / 2] + values[n / 2]);
}

std::vector<std::string> texts_of(const std::vector<TimedWord>& marks) {
  std::vector<std::string> texts;
  for (const TimedWord& mark : marks) texts.push_back(mark.text);
  return texts;
}

}  // namespace

std::string file_name(std::string id) {
  for (char& c : id) c = c == '/' || c == '\\' ? '_' : c;
  return id;
}

BoundaryStats summarise(std::vector<double> errors) {
  BoundaryStats stats;
  stats.count = static_cast<int64_t>(errors.size());
  if (errors.empty()) {
    stats.mean = stats.median = stats.bias = stats.within_20_ms = stats.within_50_ms = NAN;
    return stats;
  }
  stats.bias = median_of(errors);
  // Times are decimal numbers: 20 ms may come out as 0.02 and a rounding error.
  constexpr double kRounding = 1e-9;
  const double each = 1.0 / static_cast<double>(errors.size());
  for (double& error : errors) {
    error = std::abs(error);
    stats.mean += error * each;
    stats.within_20_ms += error <= 0.020 + kRounding ? each : 0;
    stats.within_50_ms += error <= 0.050 + kRounding ? each : 0;
  }
  stats.median = median_of(std::move(errors));
  return stats;
}

void BoundaryErrors::add(const std::vector<TimedWord>& reference,
                         const std::vector<TimedWord>& marks) {
  size_t r = 0, m = 0;
  for (const AlignedPair& pair : align(texts_of(reference), texts_of(marks))) {
    const bool in_reference = pair.edit != Edit::insertion, in_marks = pair.edit != Edit::deletion;
    if (pair.edit == Edit::match) {
      begins.push_back(marks[m].begin - reference[r].begin);
      ends.push_back(marks[m].end - reference[r].end);
    } else {
      missing += in_reference;
      surplus += in_marks;
    }
    r += in_reference;
    m += in_marks;
  }
}

BoundaryStats BoundaryErrors::all() const {
  std::vector<double> both = begins;
  both.insert(both.end(), ends.begin(), ends.end());
  return summarise(std::move(both));
}

ReferenceMarks::ReferenceMarks(std::string path, std::string tier, std::vector<std::string> pauses)
    : path_(std::move(path)), tier_(std::move(tier)), pauses_(std::move(pauses)) {
  std::error_code error;
  CENTROID_CHECK(fs::exists(path_, error), path_, ": no such file or folder");
  folder_ = fs::is_directory(path_, error);
  if (folder_) return;
  for (const CtmEntry& entry : read_ctm(path_)) {
    TimedWord word{entry.word, entry.begin, entry.begin + entry.duration, entry.confidence};
    ctm_.emplace_back(entry.recording, std::move(word));
  }
  std::stable_sort(ctm_.begin(), ctm_.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first, a.second.begin) < std::tie(b.first, b.second.begin);
  });
  for (size_t i = 1; i < ctm_.size(); ++i) {
    const auto& [before, last] = ctm_[i - 1];
    const auto& [id, word] = ctm_[i];
    CENTROID_CHECK(
        id != before || word.begin != last.begin || word.end != last.end || word.text != last.text,
        path_, ": ", id, ": ", word.text, " at ", word.begin, " s is listed twice");
  }
}

std::vector<TimedWord> ReferenceMarks::of(const std::string& id) const {
  std::vector<TimedWord> marks;
  if (!folder_) {
    for (auto it = std::lower_bound(
             ctm_.begin(), ctm_.end(), id,
             [](const auto&entry, const std::string&key) { return entry.first < key; });
         it != ctm_.end() && it->first == id; ++it) {
      marks.push_back(it->second);
    }
    CENTROID_CHECK(!marks.empty(), path_, ": no line for the recording ", id);
  } else if (const fs::path lab = fs::path(path_) / (file_name(id) + ".lab"); fs::exists(lab)) {
    marks = read_lab(lab.string());
  } else {
    const std::string file = (fs::path(path_) / (file_name(id) + ".TextGrid")).string();
    CENTROID_CHECK(fs::exists(file), path_, ": expected ", file_name(id), ".lab or ", file_name(id),
                   ".TextGrid, found neither");
    const TextGrid grid = read_textgrid(file);
    const Tier* tier = grid.find(tier_);
    std::string names;
    for (const Tier& t : grid.tiers) names += (names.empty() ? "" : ", ") + t.name;
    CENTROID_CHECK(tier && !tier->points, file, ": expected an interval tier named ", tier_,
                   ", got the tiers ", names, " (--tier)");
    marks = tier->marks;
  }
  std::erase_if(marks, [&](const TimedWord& mark) {
    return mark.text.empty() ||
           std::find(pauses_.begin(), pauses_.end(), mark.text) != pauses_.end();
  });
  return marks;
}

}  // namespace centroid::audio
