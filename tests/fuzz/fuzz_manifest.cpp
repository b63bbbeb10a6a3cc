// The parsers of text: a manifest, a vocabulary and UTF-8 helpers give a value or an Error.
#include <cstdint>
#include <sstream>
#include <string>

#include "apps/audio/manifest.h"
#include "apps/audio/text.h"
#include "apps/audio/vocab.h"
#include "tensor/error.h"
#include "tensor/json.h"

namespace {

using namespace centroid;
using namespace centroid::audio;

void read_manifest_bytes(const std::string& bytes) {
  ManifestReader reader(std::make_unique<std::istringstream>(bytes), "input", "folder");
  for (Utterance u; reader.next(u);) {
    if (u.id.empty() || u.audio.empty() || !(u.duration >= 0) || !(u.offset >= 0)) __builtin_trap();
    for (const Unit unit : {Unit::characters, Unit::words}) {
      if (symbols(u, unit).empty()) continue;
      const Vocab vocab = build_vocab({u}, unit, true);
      const auto ids = vocab.encode(u);
      if (vocab.decode(ids) != vocab.symbols(u)) __builtin_trap();
    }
  }
}

void read_vocab_bytes(const std::string& bytes) {
  const auto json = try_parse_json(bytes);
  if (!json.is_discarded()) json.get<Vocab>();
}

void normalise(const std::string& bytes) {
  if (!valid_utf8(bytes)) return;
  const std::string stripped = strip_punctuation(lowercase(bytes));
  if (!valid_utf8(stripped) || collapse_spaces(stripped) != stripped) __builtin_trap();
  if (display_width(bytes) < 0) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const auto parse : {read_manifest_bytes, read_vocab_bytes, normalise}) {
    try {
      parse(bytes);
    } catch (const Error&) {
    }
  }
  return 0;
}
