#pragma once
// How the cells of the report spell their commands.
#include <sstream>
#include <string>
#include <vector>

#include "apps/report.h"

namespace centroid::apps {

/// A line of words separated by blanks.
inline Words words(const std::string& line) {
  Words result;
  std::istringstream in(line);
  for (std::string word; in >> word;) result.push_back(word);
  return result;
}

inline std::string run_folder(const std::string& run) { return "$WORK/runs/" + run; }

/// A training, whose folder its name gives.
inline Step train(const std::string& run, const std::string& line) {
  return {Step::train, run, words(line + " --out " + run_folder(run))};
}

/// What prints JSON.
inline Step result(const std::string& name, const std::string& line) {
  return {Step::result, name, words(line + " --json")};
}

/// `$WORK/data/festvox-ru/{train,dev,test}.jsonl` and `vocab.json`: phones of festvox-ru.
Step speech_data();

/// Cells that are about recognisers, not about attention.
void add_recognisers(std::vector<Cell>& cells);

}  // namespace centroid::apps
