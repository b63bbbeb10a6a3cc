#pragma once
// Praat's TextGrid files (Boersma, "Praat, a system for doing phonetics by computer", 2001).
#include <string>
#include <string_view>
#include <vector>

#include "apps/audio/timed_words.h"

namespace centroid::audio {

/// A tier of a TextGrid: intervals that cover its whole time, or points.
struct Tier {
  std::string name;
  bool points = false;  ///< a TextTier: `begin` and `end` of a mark are the same
  double begin = 0, end = 0;
  std::vector<TimedWord> marks;  ///< in order; an interval without a label has an empty text
};

struct TextGrid {
  double begin = 0, end = 0;
  std::vector<Tier> tiers;

  /// The tier of that name; null when there is none.
  const Tier* find(const std::string& name) const;
};

/// Reads a TextGrid in Praat's long or short text format, UTF-8 or UTF-16 (with a byte order mark).
/// Throws, naming file and line, for anything else, and for marks that are not in order.
/// `parse_textgrid` takes the bytes; `name` stands for the file in messages.
TextGrid read_textgrid(const std::string& path);
TextGrid parse_textgrid(std::string_view bytes, const std::string& name);

/// The TextGrid as text in UTF-8, every number as short as reading it back exactly allows. Throws
/// for times that are not finite or not in order and for text that is not UTF-8.
std::string format_textgrid(const TextGrid& grid, bool short_format = false);

/// A tier of the segments, with empty intervals where nothing is said, from 0 to `end`, in whole
/// milliseconds. Throws for segments that overlap or have no length, which Praat does not take.
Tier interval_tier(const std::string& name, const std::vector<TimedWord>& segments, double end);

}  // namespace centroid::audio
