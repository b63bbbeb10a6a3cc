#pragma once
// Bytes as text (RFC 4648, section 4).
#include <string>
#include <string_view>

namespace centroid::audio {

/// Four characters for every three bytes, `=` filling up the last four.
std::string to_base64(std::string_view bytes);

/// The bytes again. Throws for other characters, wrong filling and bits beyond the end.
std::string from_base64(std::string_view text);

}  // namespace centroid::audio
