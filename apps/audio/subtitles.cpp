#include "apps/audio/subtitles.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

/// HH:MM:SS and milliseconds behind `point`.
std::string clock(int64_t ms, char point) {
  char text[40];
  std::snprintf(text, sizeof text, "%02lld:%02lld:%02lld%c%03lld",
                static_cast<long long>(ms / 3600000), static_cast<long long>(ms / 60000 % 60),
                static_cast<long long>(ms / 1000 % 60), point, static_cast<long long>(ms % 1000));
  return text;
}

std::string format(const std::vector<TimedWord>& subtitles, char point, bool numbered) {
  std::string out;
  double previous = 0;
  for (size_t i = 0; i < subtitles.size(); ++i) {
    const TimedWord& s = subtitles[i];
    CENTROID_CHECK(std::isfinite(s.end) && s.begin >= previous && s.end >= s.begin,
                   "subtitles: expected times in order, got ", s.begin, " to ", s.end, " s after ",
                   previous, " s");
    previous = s.begin;
    double end = s.end;
    if (i + 1 < subtitles.size()) end = std::min(end, std::max(subtitles[i + 1].begin, s.begin));
    if (numbered) out += std::to_string(i + 1) + "\n";
    out += clock(std::llround(s.begin * 1000), point) + " --> " +
           clock(std::llround(end * 1000), point) + "\n" + s.text + "\n\n";
  }
  return out;
}

}  // namespace

std::vector<TimedWord> make_subtitles(const std::vector<TimedWord>& words,
                                      const SubtitleOptions& o) {
  CENTROID_CHECK(o.columns >= 1 && o.lines >= 1 && o.longest > 0 && o.pause > 0,
                 "subtitles: expected columns, lines and times above 0, got ", o.columns, ", ",
                 o.lines, ", ", o.longest, " s and ", o.pause, " s");
  std::vector<TimedWord> out;
  int lines = 0, columns = 0;
  for (const TimedWord& word : words) {
    const int width = display_width(word.text);
    const bool fits_line = lines > 0 && columns + 1 + width <= o.columns;
    const bool fits = lines > 0 && (fits_line || lines < o.lines) &&
                      word.end - out.back().begin <= o.longest &&
                      word.begin - out.back().end < o.pause;
    if (!fits) {
      out.push_back(word);
      lines = 1;
      columns = width;
      continue;
    }
    out.back().text += (fits_line ? " " : "\n") + word.text;
    out.back().end = word.end;
    columns = fits_line ? columns + 1 + width : width;
    lines += !fits_line;
  }
  return out;
}

std::string format_srt(const std::vector<TimedWord>& subtitles) {
  return format(subtitles, ',', true);
}

std::string format_vtt(const std::vector<TimedWord>& subtitles) {
  return "WEBVTT\n\n" + format(subtitles, '.', false);
}

}  // namespace centroid::audio
