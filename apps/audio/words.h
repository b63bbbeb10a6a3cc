#pragma once
// From symbols with times to words with times.
#include <string>
#include <vector>

#include "apps/audio/timed_words.h"
#include "apps/audio/vocab.h"

namespace centroid::audio {

/// The words that symbols of `unit` make: characters between `<space>`s joined, other units as they
/// are. A word lasts from its first symbol's begin to its last one's end; its confidence is the
/// geometric mean of its symbols'.
std::vector<TimedWord> words_of(const std::vector<TimedWord>& symbols, Unit unit);

/// One word of symbols `begin` to `end`, spelled `text`, as above.
TimedWord join_symbols(const std::vector<TimedWord>& symbols, size_t begin, size_t end,
                       std::string text);

}  // namespace centroid::audio
