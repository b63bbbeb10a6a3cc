#pragma once
// What the tests of the readers of corpora share.
#include <map>
#include <string>
#include <vector>

#include "apps/audio/check.h"
#include "apps/audio/prepare.h"
#include "tests/apps/audio_support.h"

namespace audio_test {

using namespace centroid::audio;
using Strings = std::vector<std::string>;

inline Strings ids(const std::vector<Utterance>& utterances) {
  Strings out;
  for (const Utterance& u : utterances) out.push_back(u.id);
  return out;
}

inline std::map<std::string, std::string> problems(const Prepared& prepared) {
  std::map<std::string, std::string> out;
  for (const Problem& p : prepared.problems) out[p.id] += p.what;
  return out;
}

/// The usable utterances; what is wrong with the others joins the reader's problems.
inline Prepared checked(Prepared prepared, Unit unit = Unit::characters,
                        SoundCheck sound = SoundCheck::full) {
  CheckOptions options;
  options.unit = unit;
  options.sound = sound;
  options.silence_db = -200;
  std::erase_if(prepared.utterances,
                [&](Utterance& u) { return !check_utterance(u, options, prepared.problems); });
  return prepared;
}

}  // namespace audio_test
