// What all corpora have in common: checking utterances and splitting them into sets.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/audio/sound.h"
#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

/// Throws when the utterance cannot be used; fills in its duration.
void check_one(Utterance& u, const CheckOptions& options) {
  if (options.lowercase) u.text = lowercase(u.text);
  u.text = options.strip_punctuation ? strip_punctuation(u.text) : collapse_spaces(u.text);
  const bool phones = options.unit == Unit::phones;
  CENTROID_CHECK(phones ? !u.phones.empty() : !u.text.empty(),
                 phones ? "no phones" : "the text is empty",
                 phones ? " (train on characters or words instead: --unit)" : "");
  if (options.decode) {
    u.duration = load_sound(u.audio, 0, u.offset, u.duration).seconds();
    return;
  }
  const double length = sound_duration(u.audio);
  if (u.duration == 0) u.duration = length - u.offset;
  CENTROID_CHECK(u.duration > 0 && u.offset + u.duration <= length + kSegmentSlack, "the segment ",
                 u.offset, "..", u.offset + u.duration, " s is beyond the sound's end, ", length,
                 " s");
}

/// A 64-bit hash with all bits mixed (FNV-1a, then the finaliser of SplitMix64), as a fraction in
/// [0, 1).
double hash_fraction(const std::string& id) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  hash = (hash ^ hash >> 30) * 0xBF58476D1CE4E5B9u;
  hash = (hash ^ hash >> 27) * 0x94D049BB133111EBu;
  hash ^= hash >> 31;
  return static_cast<double>(hash >> 11) * 0x1p-53;
}

using Set = std::vector<Utterance> Splits::*;

/// Puts each utterance into the set that `choose` names.
template <typename F>
Splits split_by(const Prepared& prepared, const F& choose) {
  Splits splits;
  for (const Utterance& u : prepared.utterances) (splits.*choose(u)).push_back(u);
  return splits;
}

}  // namespace

void check_utterances(Prepared& prepared, const CheckOptions& options) {
  std::vector<Utterance> good;
  std::set<std::string> ids;
  for (Utterance& u : prepared.utterances) {
    const bool usable = attempt(prepared.problems, u.id, [&] {
      check_one(u, options);
      CENTROID_CHECK(ids.insert(u.id).second, "the id appears twice");
    });
    if (usable) good.push_back(std::move(u));
  }
  prepared.utterances = std::move(good);
}

Splits split_every_10th(const Prepared& prepared) {
  std::set<std::string> ids;
  for (const Utterance& u : prepared.utterances) ids.insert(u.id);
  for (const Problem& p : prepared.problems) ids.insert(p.id);
  std::map<std::string, int> places;  // from 1, of each ten
  for (const std::string& id : ids) places.emplace(id, (places.size() + 1) % 10);
  return split_by(prepared, [&](const Utterance& u) {
    const int place = places.at(u.id);
    return place == 0 ? &Splits::test : place == 5 ? &Splits::dev : &Splits::train;
  });
}

Splits split_by_hash(const Prepared& prepared, double dev, double test) {
  CENTROID_CHECK(dev >= 0 && test >= 0 && dev + test < 1, "split: expected fractions for dev and ",
                 "test >= 0 that leave something to train on, got ", dev, " and ", test);
  return split_by(prepared, [&](const Utterance& u) {
    const double h = hash_fraction(u.id);
    return h < test ? &Splits::test : h < test + dev ? &Splits::dev : &Splits::train;
  });
}

Splits split_by_speaker(const Prepared& prepared, const std::vector<std::string>& dev,
                        const std::vector<std::string>& test) {
  std::map<std::string, Set> sets;  // of each speaker
  for (const Utterance& u : prepared.utterances) sets.emplace(u.speaker, &Splits::train);
  std::vector<std::string> speakers;
  for (const auto& [speaker, set] : sets) speakers.push_back(speaker);
  for (const auto& [names, wanted] : {std::pair{&dev, &Splits::dev}, {&test, &Splits::test}}) {
    for (const std::string& speaker : *names) {
      const auto it = sets.find(speaker);
      CENTROID_CHECK(it != sets.end(), "split: speaker ", speaker, " does not occur; there are ",
                     join(speakers, ", "));
      CENTROID_CHECK(it->second == &Splits::train || it->second == wanted, "split: speaker ",
                     speaker, " is named for dev and for test");
      it->second = wanted;
    }
  }
  return split_by(prepared, [&](const Utterance& u) { return sets.at(u.speaker); });
}

Splits split_by_lists(const Prepared& prepared, const std::string& train, const std::string& dev,
                      const std::string& test, std::vector<Problem>& problems) {
  Splits splits;
  std::map<std::string, std::vector<Utterance>*> target;
  const auto read_list = [&](const std::string& path, std::vector<Utterance>* set) {
    if (path.empty()) return;
    for (const auto& [number, id] : read_entries(path)) {
      CENTROID_CHECK(target.emplace(id, set).second, path, ": ", id,
                     " is listed twice, here or in another list");
    }
  };
  read_list(train, &splits.train);
  read_list(dev, &splits.dev);
  read_list(test, &splits.test);
  std::set<std::string> seen;
  for (const Problem& p : prepared.problems) seen.insert(p.id);
  for (const Utterance& u : prepared.utterances) {
    seen.insert(u.id);
    const auto it = target.find(u.id);
    if (it != target.end()) {
      it->second->push_back(u);
    } else if (train.empty()) {
      splits.train.push_back(u);
    } else {
      problems.push_back({u.id, "in none of the lists of ids"});
    }
  }
  for (const auto& [id, set] : target) {
    if (seen.count(id) == 0) problems.push_back({id, "in a list of ids, but not in the corpus"});
  }
  return splits;
}

}  // namespace centroid::audio
