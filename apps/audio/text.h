#pragma once
// UTF-8 text: code points, letter case, punctuation and the width of text on a terminal.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace centroid::audio {

/// True when `text` is well-formed UTF-8 (no overlong forms, surrogates or truncated sequences).
bool valid_utf8(std::string_view text);

/// The code points of `text`. Throws when it is not well-formed UTF-8.
std::vector<char32_t> code_points(std::string_view text);

/// One code point as UTF-8.
std::string to_utf8(char32_t code);

/// Lower case of Latin, Greek, Cyrillic and Armenian letters; other characters stay.
std::string lowercase(std::string_view text);

/// Upper case of the same letters; those without one (as the German sharp s) stay.
std::string uppercase(std::string_view text);

/// Keeps letters, marks, figures, apostrophes inside words and spaces; a hyphen or dash becomes a
/// space; every other sign of punctuation or symbol is removed. White space is collapsed.
std::string strip_punctuation(std::string_view text);

/// White space runs become one space; none at the ends.
std::string collapse_spaces(std::string_view text);

/// Columns `text` takes on a terminal: 0 for combining marks, 2 for wide East Asian characters.
int display_width(std::string_view text);

}  // namespace centroid::audio
