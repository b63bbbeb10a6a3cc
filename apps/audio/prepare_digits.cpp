// The Free Spoken Digit Dataset and sequences of digits made of it.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/audio/sound.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

const char* const kDigits[] = {"zero", "one", "two",   "three", "four",
                               "five", "six", "seven", "eight", "nine"};

/// One recorded digit.
struct Take {
  Utterance utterance;
  int number = 0;
  Sound sound;
};

/// The parts of DIGIT_SPEAKER_TAKE, or false.
bool parse_name(const std::string& stem, int* digit, std::string* speaker, int* take) {
  const size_t first = stem.find('_'), last = stem.rfind('_');
  double value = 0;
  if (first != 1 || last <= first + 1 || stem[0] < '0' || stem[0] > '9') return false;
  if (!parse_number(stem.substr(last + 1), &value) || value < 0 || value > 1e6 ||
      value != std::floor(value))
    return false;
  *digit = stem[0] - '0';
  *speaker = stem.substr(2, last - 2);
  *take = static_cast<int>(value);
  return true;
}

/// Makes the sequences of one set.
class SequenceMaker {
 public:
  SequenceMaker(std::string name, std::string out, const DigitsOptions& options)
      : name_(std::move(name)),
        out_(std::move(out)),
        options_(options),
        rng_(options.seed, "digits/" + name_) {}

  void add(const Take* take) { speakers_[take->utterance.speaker].takes.push_back(take); }

  std::vector<Utterance> make(int count) {
    CENTROID_CHECK(count == 0 || !speakers_.empty(), "digits: the ", name_,
                   " set has no takes to be made of");
    std::vector<Utterance> sequences;
    while (static_cast<int>(sequences.size()) < count) {
      for (auto& [speaker, pool] : speakers_) {
        if (static_cast<int>(sequences.size()) < count)
          sequences.push_back(sequence(speaker, pool, sequences.size()));
      }
    }
    return sequences;
  }

 private:
  struct Pool {
    std::vector<const Take*> takes;
    std::vector<int64_t> order;  // what is left of this round, from the back
  };

  const Take& draw(Pool& pool) {
    if (pool.order.empty()) pool.order = rng_.permutation(static_cast<int64_t>(pool.takes.size()));
    const Take& take = *pool.takes[pool.order.back()];
    pool.order.pop_back();
    return take;
  }

  Utterance sequence(const std::string& speaker, Pool& pool, size_t index) {
    const double span = options_.max_seconds - options_.min_seconds;
    const double target = options_.min_seconds + span * rng_.uniform();
    Utterance u;
    std::string number = std::to_string(index);
    number.insert(0, number.size() < 5 ? 5 - number.size() : 0, '0');
    u.id = concat("digits-", name_, "-", speaker, "-", number);
    u.speaker = speaker;
    Sound sound;
    std::vector<std::string> words;
    while (words.empty() || sound.seconds() < target) {
      const Take& take = draw(pool);
      CENTROID_CHECK(words.empty() || take.sound.rate == sound.rate,
                     "digits: ", take.utterance.audio, " has ", take.sound.rate,
                     " Hz, other takes of ", speaker, " ", sound.rate, " Hz");
      sound.rate = take.sound.rate;
      const double gap = words.empty() ? 0 : options_.max_gap * rng_.uniform();
      sound.samples.resize(sound.samples.size() + static_cast<size_t>(gap * sound.rate), 0.0f);
      sound.samples.insert(sound.samples.end(), take.sound.samples.begin(),
                           take.sound.samples.end());
      words.push_back(take.utterance.text);
    }
    u.text = join(words, " ");
    u.duration = sound.seconds();
    u.audio = (fs::path(out_) / (u.id + ".wav")).string();
    write_wav(u.audio, sound);
    return u;
  }

  std::string name_, out_;
  const DigitsOptions& options_;
  Rng rng_;
  std::map<std::string, Pool> speakers_;
};

void check_options(const DigitsOptions& o) {
  CENTROID_CHECK(o.min_seconds > 0 && o.min_seconds <= o.max_seconds && o.max_seconds <= 3600,
                 "digits: expected 0 < min_seconds <= max_seconds <= 3600, got ", o.min_seconds,
                 " and ", o.max_seconds);
  CENTROID_CHECK(o.max_gap >= 0 && o.max_gap <= 60, "digits: expected max_gap in 0..60 s, got ",
                 o.max_gap);
  CENTROID_CHECK(o.train >= 0 && o.dev >= 0 && o.test >= 0,
                 "digits: expected numbers of sequences >= 0, got ", o.train, ", ", o.dev, ", ",
                 o.test);
}

std::vector<Take> load_takes(const std::string& folder, std::vector<Problem>& problems) {
  Prepared takes = prepare_fsdd(folder);
  problems.insert(problems.end(), takes.problems.begin(), takes.problems.end());
  std::vector<Take> loaded;
  for (Utterance& u : takes.utterances) {
    try {
      Take take;
      take.sound = load_sound(u.audio);
      int digit = 0;
      std::string speaker;
      parse_name(u.id, &digit, &speaker, &take.number);
      take.utterance = std::move(u);
      loaded.push_back(std::move(take));
    } catch (const Error& error) {
      problems.push_back({u.id, error.what()});
    }
  }
  return loaded;
}

}  // namespace

Prepared prepare_fsdd(const std::string& folder) {
  check_folder("fsdd", folder);
  const fs::path inner = fs::path(folder) / "recordings";
  const fs::path recordings = fs::is_directory(inner) ? inner : fs::path(folder);
  Prepared out;
  for (const std::string& file : list_files(recordings.string(), ".wav")) {
    Utterance u;
    u.id = fs::path(file).stem().string();
    u.audio = (recordings / file).string();
    int digit = 0, take = 0;
    if (parse_name(u.id, &digit, &u.speaker, &take)) {
      u.text = kDigits[digit];
      out.utterances.push_back(std::move(u));
    } else {
      out.problems.push_back({file, "expected a name DIGIT_SPEAKER_TAKE.wav"});
    }
  }
  CENTROID_CHECK(!out.utterances.empty() || !out.problems.empty(),
                 "fsdd: expected DIGIT_SPEAKER_TAKE.wav files in ", recordings.string(),
                 ", found no .wav file");
  return out;
}

Splits prepare_connected_digits(const std::string& folder, const std::string& out,
                                const DigitsOptions& options, std::vector<Problem>& problems) {
  check_options(options);
  const std::vector<Take> takes = load_takes(folder, problems);
  if (!problems.empty() && !options.skip_bad) return {};
  const std::string wav = (fs::path(out) / "wav").string();
  SequenceMaker train("train", wav, options), dev("dev", wav, options), test("test", wav, options);
  const bool leave_out = !options.leave_out.empty();
  const auto is_left_out = [&](const Take& t) { return t.utterance.speaker == options.leave_out; };
  CENTROID_CHECK(!leave_out || std::any_of(takes.begin(), takes.end(), is_left_out),
                 "digits: speaker ", options.leave_out, " does not occur in ", folder);
  for (const Take& take : takes) {
    const bool is_test = leave_out ? is_left_out(take) : take.number < 5;
    (is_test ? test : take.number < 10 ? dev : train).add(&take);
  }
  make_folder(wav);
  Splits splits;
  splits.train = train.make(options.train);
  splits.dev = dev.make(options.dev);
  splits.test = test.make(options.test);
  return splits;
}

}  // namespace centroid::audio
