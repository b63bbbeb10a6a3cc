#pragma once
// Subtitles: words with times as SubRip (SRT) and WebVTT files.
#include <string>
#include <vector>

#include "apps/audio/timed_words.h"

namespace centroid::audio {

/// What one subtitle may hold.
struct SubtitleOptions {
  int columns = 42;    ///< of a line on the screen
  int lines = 2;       ///< of a subtitle
  double longest = 6;  ///< seconds
  double pause = 0.8;  ///< a pause of so many seconds between words ends a subtitle
};

/// Words in reading order -> subtitles (TimedWord each, lines separated by \n). A word begins a new
/// subtitle when it would not fit into the lines, would make it last longer than `longest`, or
/// comes after a pause. A word longer than a line has a line for itself.
std::vector<TimedWord> make_subtitles(const std::vector<TimedWord>& words,
                                      const SubtitleOptions& options = {});

/// Subtitles as files. Times are rounded to milliseconds, and an end that would pass the next begin
/// is drawn back to it. Throws for times that are negative, not finite or not in order.
std::string format_srt(const std::vector<TimedWord>& subtitles);
std::string format_vtt(const std::vector<TimedWord>& subtitles);

}  // namespace centroid::audio
