#include "apps/audio/split.h"

#include <cstdint>
#include <map>
#include <set>

#include "apps/audio/files.h"
#include "apps/audio/string_table.h"
#include "apps/audio/text.h"

namespace centroid::audio {

namespace {

class None : public Split {
 public:
  std::optional<Set> choose(const Utterance&) const override { return Set::train; }
};

class Every10th : public Split {
 public:
  void see(const std::string& id, const std::string&) override { ids_.add(id); }
  void close(std::vector<Problem>&) override { ids_.sort(); }
  std::optional<Set> choose(const Utterance& u) const override {
    const size_t place = (ids_.find(u.id) + 1) % 10;  // from 1, of each ten
    return place == 0 ? Set::test : place == 5 ? Set::dev : Set::train;
  }

 private:
  StringTable ids_;
};

/// A 64-bit hash with all bits mixed (FNV-1a, then the finaliser of SplitMix64), as a fraction in
/// [0, 1).
double hash_fraction(const std::string& text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  hash = (hash ^ hash >> 30) * 0xBF58476D1CE4E5B9u;
  hash = (hash ^ hash >> 27) * 0x94D049BB133111EBu;
  hash ^= hash >> 31;
  return static_cast<double>(hash >> 11) * 0x1p-53;
}

class ByHash : public Split {
 public:
  ByHash(bool by_text, double dev, double test) : by_text_(by_text), dev_(dev), test_(test) {
    CENTROID_CHECK(dev >= 0 && test >= 0 && dev + test < 1, "split: expected fractions for dev ",
                   "and test >= 0 that leave something to train on, got ", dev, " and ", test);
  }
  std::optional<Set> choose(const Utterance& u) const override {
    const double h = hash_fraction(by_text_ ? strip_punctuation(lowercase(u.text)) : u.id);
    return h < test_ ? Set::test : h < test_ + dev_ ? Set::dev : Set::train;
  }

 private:
  bool by_text_;
  double dev_, test_;
};

class BySpeaker : public Split {
 public:
  BySpeaker(const std::vector<std::string>& dev, const std::vector<std::string>& test) {
    for (const auto& [names, set] : {std::pair{&dev, Set::dev}, {&test, Set::test}}) {
      for (const std::string& speaker : *names) {
        const auto [it, added] = sets_.emplace(speaker, set);
        CENTROID_CHECK(added || it->second == set, "split: speaker ", speaker,
                       " is named for dev and for test");
      }
    }
  }
  void see(const std::string&, const std::string& speaker) override {
    if (!speaker.empty()) speakers_.insert(speaker);
  }
  void close(std::vector<Problem>&) override {
    constexpr size_t kShown = 20;
    std::vector<std::string> shown;
    for (const std::string& speaker : speakers_) {
      if (shown.size() < kShown) shown.push_back(speaker);
    }
    for (const auto& [speaker, set] : sets_) {
      CENTROID_CHECK(speakers_.contains(speaker), "split: speaker ", speaker,
                     " does not occur; there are ", shown.empty() ? "none" : join(shown, ", "),
                     speakers_.size() > kShown ? ", ..." : "");
    }
  }
  std::optional<Set> choose(const Utterance& u) const override {
    const auto it = sets_.find(u.speaker);
    return it == sets_.end() ? Set::train : it->second;
  }

 private:
  std::map<std::string, Set> sets_;  // of the named speakers
  std::set<std::string> speakers_;   // that occur
};

class ByLists : public Split {
 public:
  ByLists(const std::string& train, const std::string& dev, const std::string& test)
      : all_train_(train.empty()) {
    read(train, Set::train);
    read(dev, Set::dev);
    read(test, Set::test);
  }
  void see(const std::string& id, const std::string&) override {
    const auto it = listed_.find(id);
    if (it != listed_.end()) it->second.seen = true;
  }
  void close(std::vector<Problem>& problems) override {
    for (const auto& [id, entry] : listed_) {
      if (entry.seen) continue;
      problems.push_back({id, "in a list of ids, but not in the corpus", ProblemKind::not_listed});
    }
  }
  std::optional<Set> choose(const Utterance& u) const override {
    const auto it = listed_.find(u.id);
    if (it != listed_.end()) return it->second.set;
    return all_train_ ? std::optional(Set::train) : std::nullopt;
  }

 private:
  struct Entry {
    Set set;
    bool seen = false;
  };
  void read(const std::string& path, Set set) {
    if (path.empty()) return;
    for (const auto& [number, id] : read_entries(path)) {
      CENTROID_CHECK(listed_.emplace(id, Entry{set}).second, path, ": ", id,
                     " is listed twice, here or in another list");
    }
  }
  std::map<std::string, Entry> listed_;
  bool all_train_;
};

}  // namespace

std::unique_ptr<Split> split_none() { return std::make_unique<None>(); }

std::unique_ptr<Split> split_every_10th() { return std::make_unique<Every10th>(); }

std::unique_ptr<Split> split_by_hash(double dev, double test) {
  return std::make_unique<ByHash>(/*by_text=*/false, dev, test);
}

std::unique_ptr<Split> split_by_text(double dev, double test) {
  return std::make_unique<ByHash>(/*by_text=*/true, dev, test);
}

std::unique_ptr<Split> split_by_speaker(const std::vector<std::string>& dev,
                                        const std::vector<std::string>& test) {
  return std::make_unique<BySpeaker>(dev, test);
}

std::unique_ptr<Split> split_by_lists(const std::string& train, const std::string& dev,
                                      const std::string& test) {
  return std::make_unique<ByLists>(train, dev, test);
}

}  // namespace centroid::audio
