// ARPA n-gram models: bytes give a model or an Error, and a model is written as it was read.
#include <cmath>
#include <cstdint>
#include <string>

#include "apps/audio/arpa.h"
#include "tensor/error.h"

using namespace centroid;
using namespace centroid::audio;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    const NgramModel model = parse_arpa(bytes, "input");
    const std::string text = to_arpa(model);
    if (to_arpa(parse_arpa(text, "again")) != text) __builtin_trap();
    NgramModel::State state = model.begin_state();
    for (int32_t word = 0; word < static_cast<int32_t>(model.words().size()); ++word) {
      const auto [log_prob, next] = model.score(state, word);
      if (!std::isfinite(log_prob)) __builtin_trap();
      state = next;
    }
    score_sentence(model, {model.words()[0], "no such word", model.words().back()});
  } catch (const Error&) {
  }
  return 0;
}
