#pragma once
// Which utterances train a recogniser, which guide its training and which test it.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/audio/prepare.h"

namespace centroid::audio {

enum class Set { train, dev, test };
constexpr const char* kSetNames[] = {"train", "dev", "test"};

/// A rule that needs one pass over the corpus before it can be asked.
class Split {
 public:
  virtual ~Split() = default;
  /// First pass: every utterance, also those that cannot be used (`speaker` empty), so that a bad
  /// file does not shift the others.
  virtual void see(const std::string&, const std::string& /*speaker*/) {}
  /// After the first pass; adds what is wrong with the rule itself to `problems`.
  virtual void close(std::vector<Problem>&) {}
  /// The set of a usable utterance; none: it is in no set.
  virtual std::optional<Set> choose(const Utterance& utterance) const = 0;
};

/// Everything trains.
std::unique_ptr<Split> split_none();

/// By position in the sorted list of all ids: of each ten the last is for test, the fifth for
/// development. Keeps the ids in memory.
std::unique_ptr<Split> split_every_10th();

/// By a hash of the id: an utterance stays in its set when others come and go. `dev` and `test` are
/// fractions; throws unless they are >= 0 and sum to less than 1.
std::unique_ptr<Split> split_by_hash(double dev, double test);

/// The same by a hash of the transcript without case and punctuation: a sentence that was spoken
/// twice is in one set only, so that no tested one was trained on.
std::unique_ptr<Split> split_by_text(double dev, double test);

/// By speaker: `test` and `dev` name speakers, all others train. `close` throws for a speaker that
/// does not occur.
std::unique_ptr<Split> split_by_speaker(const std::vector<std::string>& dev,
                                        const std::vector<std::string>& test);

/// By files of ids, one a line. An empty `train` path: all ids in no other list train. With a train
/// list, utterances in no list are in no set; listed ids that do not occur are problems. Throws
/// when an id is in two lists.
std::unique_ptr<Split> split_by_lists(const std::string& train, const std::string& dev,
                                      const std::string& test);

}  // namespace centroid::audio
