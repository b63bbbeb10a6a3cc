// Lexicons: what is read can be written and read again; so can base64.
#include <cmath>
#include <cstdint>
#include <string>

#include "apps/audio/base64.h"
#include "apps/audio/lexicon.h"
#include "tensor/error.h"

namespace {

using namespace centroid;
using namespace centroid::audio;

void lexicon(const std::string& bytes) {
  const Lexicon lexicon = parse_lexicon(bytes, "input");
  if (lexicon.empty()) __builtin_trap();
  std::string text;
  try {
    text = format_lexicon(lexicon);
  } catch (const Error&) {
    return;  // a word that only the CMU dictionary's numbers let in, as `a(2)(3)`
  }
  const Lexicon again = parse_lexicon(text, "again");
  if (again.words() != lexicon.words()) __builtin_trap();
  for (const std::string& word : lexicon.words()) {
    const auto &a = *lexicon.find(word), &b = *again.find(word);
    if (a.size() != b.size()) __builtin_trap();
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i].phones != b[i].phones) __builtin_trap();
      if (!(std::fabs(a[i].log_prob - b[i].log_prob) < 1e-6)) __builtin_trap();
    }
  }
}

void base64(const std::string& bytes) {
  if (from_base64(to_base64(bytes)) != bytes) __builtin_trap();
  if (to_base64(from_base64(bytes)) != bytes) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const auto parse : {lexicon, base64}) {
    try {
      parse(bytes);
    } catch (const Error&) {
    }
  }
  return 0;
}
