#include "apps/audio/words.h"

#include <cmath>

namespace centroid::audio {

TimedWord join_symbols(const std::vector<TimedWord>& symbols, size_t begin, size_t end,
                       std::string text) {
  TimedWord word;
  word.text = std::move(text);
  word.begin = symbols.at(begin).begin;
  word.end = symbols.at(end - 1).end;
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += std::log(symbols[i].confidence);
  word.confidence = std::exp(sum / static_cast<double>(end - begin));
  return word;
}

std::vector<TimedWord> words_of(const std::vector<TimedWord>& symbols, Unit unit) {
  if (unit != Unit::characters) return symbols;
  std::vector<TimedWord> words;
  std::string text;
  for (size_t begin = 0, i = 0; i <= symbols.size(); ++i) {
    if (i < symbols.size() && symbols[i].text != kSpace) {
      text += symbols[i].text;
      continue;
    }
    if (i > begin) words.push_back(join_symbols(symbols, begin, i, text));
    text.clear();
    begin = i + 1;
  }
  return words;
}

}  // namespace centroid::audio
