#pragma once
// JSON that comes from files: its nesting is bounded before anything else is done with it.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tensor/error.h"

namespace centroid {

/// Nesting of lists and objects that is read. Whatever walks a value (copies, messages that print
/// it) calls itself for each level, so that a deeper one could overflow the stack.
inline constexpr int kJsonDepth = 100;

/// Whether brackets are nested deeper than kJsonDepth, up to the first fault of the text.
inline bool too_deep_json(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted) {
      i += c == '\\';
    } else if (c == '[' || c == '{') {
      if (++depth > kJsonDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

/// What `text` says. Throws an Error that begins with `what` when that is not JSON, or nested
/// deeper than kJsonDepth. `callback` is one of nlohmann's parser.
template <typename Json = nlohmann::json>
Json parse_json(std::string_view text, const std::string& what,
                const typename Json::parser_callback_t& callback = nullptr) {
  CENTROID_CHECK(!too_deep_json(text), what, ": expected at most ", kJsonDepth,
                 " lists and objects inside each other, got more");
  try {
    return Json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    throw Error(concat(what, ": ", error.what()));
  }
}

/// The same, but a discarded value where parse_json throws.
template <typename Json = nlohmann::json>
Json try_parse_json(std::string_view text) {
  if (too_deep_json(text)) return Json(Json::value_t::discarded);
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace centroid
