// The Free Spoken Digit Dataset and sequences of digits made of it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>

#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/audio/sound_stream.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// One recorded digit.
struct Take {
  Utterance utterance;
  int number = 0;
  Sound sound;
};

/// The parts of DIGIT_SPEAKER_TAKE.
struct TakeName {
  int digit;
  std::string speaker;
  int number;
};

/// Throws when the name of the file has another form.
TakeName parse_name(const std::string& stem) {
  const size_t last = stem.rfind('_');
  double number = -1;
  const bool good = stem.find('_') == 1 && last > 2 && stem[0] >= '0' && stem[0] <= '9' &&
                    parse_number(stem.substr(last + 1), &number) && number >= 0 && number <= 1e6 &&
                    number == std::floor(number);
  CENTROID_CHECK(good, "expected a name DIGIT_SPEAKER_TAKE.wav");
  return {stem[0] - '0', stem.substr(2, last - 2), static_cast<int>(number)};
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
    char number[24];
    std::snprintf(number, sizeof number, "%05zu", index);
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
  const Prepared takes = collect(read_fsdd, folder);
  problems.insert(problems.end(), takes.problems.begin(), takes.problems.end());
  std::vector<Take> loaded;
  for (const Utterance& u : takes.utterances) {
    try {
      loaded.push_back({u, parse_name(u.id).number, load_sound(u.audio)});
    } catch (const Error& error) {
      problems.push_back({u.id, error.what(), ProblemKind::unreadable});
    }
  }
  return loaded;
}

}  // namespace

void read_fsdd(const std::string& folder, Sink& sink) {
  check_folder("fsdd", folder);
  const fs::path inner = fs::path(folder) / "recordings";
  const fs::path recordings = fs::is_directory(inner) ? inner : fs::path(folder);
  const std::vector<std::string> files = list_files(recordings.string(), is_sound_name);
  CENTROID_CHECK(!files.empty(), "fsdd: expected DIGIT_SPEAKER_TAKE.wav files in ",
                 recordings.string(), ", found no .wav file");
  for (const std::string& file : files) {
    sink.add(file, [&](Utterance& u) {
      const std::string stem = fs::path(file).stem().string();
      CENTROID_CHECK(file.ends_with(".wav"), "expected a name DIGIT_SPEAKER_TAKE.wav");
      const TakeName name = parse_name(stem);
      u.id = stem;
      u.audio = (recordings / file).string();
      u.speaker = name.speaker;
      u.text = kFigures[name.digit];
    });
  }
}

Splits make_connected_digits(const std::string& folder, const std::string& out,
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
