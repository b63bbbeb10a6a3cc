// asr join: utterances one after another as one long recording with its transcript.
#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/audio/manifest.h"
#include "apps/audio/sound.h"
#include "apps/common/args.h"

namespace centroid::apps {

namespace {

namespace fs = std::filesystem;

struct JoinCommand {
  CommonOptions common;
  std::vector<std::string> manifests;
  std::string out;
  double seconds = 0, gap = 0;
  int rate = 0;

  void run() const;
};

/// Utterances in a row. A text that is spelled in phones stays so.
class Joined {
 public:
  Joined(int rate, double gap) : gap_(gap) { sound_.rate = rate; }

  void add(const audio::Utterance& u) {
    const audio::Sound next = audio::load_sound(u.audio, sound_.rate, u.offset, u.duration);
    sound_.rate = next.rate;
    const bool phones = !u.phones.empty();
    CENTROID_CHECK(count_ == 0 || phones == !whole_.phones.empty(), u.id,
                   ": expected phones in all utterances or in none");
    if (count_ > 0) {
      const auto silence = static_cast<size_t>(std::llround(gap_ * sound_.rate));
      sound_.samples.resize(sound_.samples.size() + silence, 0.0f);
    }
    whole_.speaker = count_ == 0 || whole_.speaker == u.speaker ? u.speaker : "";
    sound_.samples.insert(sound_.samples.end(), next.samples.begin(), next.samples.end());
    whole_.phones.insert(whole_.phones.end(), u.phones.begin(), u.phones.end());
    whole_.text += (whole_.text.empty() || u.text.empty() ? "" : " ") + u.text;
    ++count_;
  }

  int64_t count() const { return count_; }
  double seconds() const { return sound_.seconds(); }

  /// Writes the sound, and beside it the manifest that names it.
  void write(const std::string& wav, const std::string& manifest) {
    audio::write_wav(wav, sound_);
    whole_.id = fs::path(wav).stem().string();
    whole_.audio = wav;
    whole_.duration = sound_.seconds();
    audio::write_manifest(manifest, {whole_});
  }

 private:
  double gap_;
  audio::Sound sound_;
  audio::Utterance whole_;
  int64_t count_ = 0;
};

/// What is joined must not be replaced by the result.
void check_apart(const std::string& written, const std::string& read) {
  std::error_code error;
  CENTROID_CHECK(!fs::equivalent(written, read, error), "asr join: --out: ", written,
                 " would replace what is to be joined (take another name)");
}

void JoinCommand::run() const {
  apply(common);
  CENTROID_CHECK(out.ends_with(".wav"), "asr join: --out: expected a name that ends in .wav, got ",
                 out);
  const std::string described = fs::path(out).replace_extension(".jsonl").string();
  Joined joined(rate, gap);
  int64_t left = 0;
  for (const std::string& manifest : manifests) {
    check_apart(described, manifest);
    audio::ManifestReader reader(manifest);
    for (audio::Utterance u; reader.next(u);) {
      check_apart(out, u.audio);
      const bool full = seconds > 0 && joined.seconds() >= seconds;
      full ? void(++left) : joined.add(u);
    }
  }
  CENTROID_CHECK(joined.count() > 0, "asr join: expected utterances, found none");
  joined.write(out, described);
  if (common.json) {
    std::cout << nlohmann::ordered_json{{"sound", out},
                                        {"manifest", described},
                                        {"seconds", joined.seconds()},
                                        {"utterances", joined.count()},
                                        {"left", left}}
                     .dump(2)
              << "\n";
    return;
  }
  std::printf("%lld utterances, %.1f s: %s, %s\n", static_cast<long long>(joined.count()),
              joined.seconds(), out.c_str(), described.c_str());
  if (left > 0) std::printf("%lld more were not needed\n", static_cast<long long>(left));
}

}  // namespace

void register_join(CLI::App& app) {
  auto command = std::make_shared<JoinCommand>();
  CLI::App* sub = app.add_subcommand("join", "Utterances one after another as one long recording");
  const char* group = "Join";
  sub->add_option("--data", command->manifests, "Manifests, in this order")
      ->required()
      ->group(group);
  sub->add_option("--out", command->out,
                  "NAME.wav to write, 16 bits; NAME.jsonl beside it has the joined transcripts")
      ->required()
      ->type_name("FILE")
      ->group(group);
  sub->add_option("--seconds", command->seconds,
                  "Stop behind the utterance with which it is so long; 0: take all")
      ->check(non_negative())
      ->capture_default_str()
      ->group(group);
  sub->add_option("--gap", command->gap, "Seconds of digital silence between two utterances")
      ->check(in_range(0, 3600))
      ->capture_default_str()
      ->group(group);
  sub->add_option("--rate", command->rate, "Sample rate, Hz; 0: that of the first sound")
      ->check(in_range(0, 1e6))
      ->capture_default_str()
      ->group(group);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
