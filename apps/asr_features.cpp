// asr features: log-mel features or cepstra of sound files as arrays, text or pictures.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_model.h"
#include "apps/audio/files.h"
#include "apps/common/args.h"
#include "apps/common/plot.h"
#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/npy.h"
#include "tensor/rng.h"

namespace centroid::apps {

namespace {

using namespace audio;
namespace fs = std::filesystem;

struct FeaturesCommand {
  CommonOptions common;
  asr::FrontEnd front_end;
  std::vector<std::string> files;
  std::string out, png;
  double offset = 0, duration = 0;
  int repeat = 1;

  void run() const;
  double compute(const std::string& file, const Sound& sound, Features& features) const;
  void write(const std::string& file, const Features& features) const;
  void draw(const std::string& file, const Features& features) const;
};

/// `target` itself when it ends in one of `extensions`, else the file of that name in the folder
/// `target`.
std::string output_path(const std::string& target, const std::vector<std::string>& extensions,
                        const std::string& input, size_t inputs, const char* flag) {
  for (const std::string& extension : extensions) {
    if (!target.ends_with(extension)) continue;
    CENTROID_CHECK(inputs == 1, "features: ", flag, ": expected a folder for ", inputs,
                   " sounds, got the file ", target);
    return target;
  }
  make_folder(target);
  return (fs::path(target) / (fs::path(input).stem().string() + extensions[0])).string();
}

/// Two sounds of one name would overwrite each other's results.
void check_names(const std::vector<std::string>& files) {
  std::vector<std::string> stems;
  for (const std::string& file : files) stems.push_back(fs::path(file).stem().string());
  std::sort(stems.begin(), stems.end());
  const auto twice = std::adjacent_find(stems.begin(), stems.end());
  CENTROID_CHECK(twice == stems.end(), "features: several sounds are named ", *twice,
                 " (their results would have one name: run them apart)");
}

void FeaturesCommand::write(const std::string& file, const Features& f) const {
  const std::string path = output_path(out, {".npy", ".txt"}, file, files.size(), "--out");
  if (path.ends_with(".npy")) {
    save_npy(path, from_vector(f.data, {f.frames, f.bins}, Device{}));
    return;
  }
  std::string text;
  for (int64_t t = 0; t < f.frames; ++t) {
    for (int64_t b = 0; b < f.bins; ++b) {
      char number[32];
      std::snprintf(number, sizeof number, b == 0 ? "%.7g" : " %.7g", f.row(t)[b]);
      text += number;
    }
    text += '\n';
  }
  write_file_atomic(path, text.data(), text.size());
}

void FeaturesCommand::draw(const std::string& file, const Features& f) const {
  HeatmapSpec spec;
  spec.title = fs::path(file).filename().string();
  spec.rows = f.bins;
  spec.columns = f.frames;
  spec.values.resize(f.data.size());
  for (int64_t t = 0; t < f.frames; ++t) {
    for (int64_t b = 0; b < f.bins; ++b) spec.values[b * f.frames + t] = f.row(t)[b];
  }
  spec.x_label = "time [s]";
  spec.x_begin = offset;
  spec.x_step = frame_seconds(front_end.fbank, front_end.stride);
  spec.upwards = true;
  const FbankOptions& fbank = front_end.fbank;
  const bool mel = fbank.type == FeatureType::fbank && f.bins == fbank.bins;
  spec.value_label = fbank.type == FeatureType::mfcc ? "cepstra"
                     : fbank.use_log_fbank           ? "log energy"
                                                     : "energy";
  if (front_end.normalize != "none") spec.value_label += ", normalised";
  if (mel) {
    spec.y_label = "centre of mel band [Hz]";
    for (int64_t b = 0; b < f.bins; ++b) {
      spec.row_tokens.push_back(std::to_string(std::lround(centre_hertz(fbank, b))));
    }
  } else {
    spec.y_label = "feature";
  }
  spec.width = static_cast<int>(std::clamp<int64_t>(2 * f.frames, 400, 1600));
  spec.height = static_cast<int>(std::clamp<int64_t>(6 * f.bins, 160, 480));
  heatmap(spec, output_path(png, {".png"}, file, files.size(), "--png"));
}

void FeaturesCommand::run() const {
  apply(common);
  check_names(files);
  front_end.validate();
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  double seconds = 0, took = 0;
  for (const std::string& file : files) {
    const Sound sound = load_sound(file, front_end.fbank.rate, offset, duration);
    Features f;
    const double spent = compute(file, sound, f);
    seconds += sound.seconds();
    took += spent;
    if (!out.empty()) write(file, f);
    if (!png.empty()) draw(file, f);
    const auto [least, most] = std::minmax_element(f.data.begin(), f.data.end());
    results.push_back({{"file", file},
                       {"seconds", sound.seconds()},
                       {"frames", f.frames},
                       {"columns", f.bins},
                       {"min", *least},
                       {"max", *most},
                       {"seconds_taken", spent}});
    if (!common.json) {
      std::printf("%s: %.3f s, %lld frames x %lld, %.3f .. %.3f\n", file.c_str(), sound.seconds(),
                  static_cast<long long>(f.frames), static_cast<long long>(f.bins), *least, *most);
    }
  }
  if (common.json) std::cout << results.dump(1) << "\n";
  std::fflush(stdout);
  std::fprintf(stderr, "%.1f s of sound in %.4f s on one thread: %.0f times real time\n", seconds,
               took, seconds / std::max(took, 1e-9));
}

/// The features of one sound; returns the seconds that it took, of the fastest of `repeat` times.
double FeaturesCommand::compute(const std::string& file, const Sound& sound, Features& f) const {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeat; ++i) {
    Rng dither = Rng(common.seed, "dither").fork(file);
    const auto begin = std::chrono::steady_clock::now();
    try {
      f = front_end.finish(front_end.filterbank(sound, &dither));
    } catch (const Error& error) {
      throw Error(concat(file, ": ", error.what()));
    }
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    least = std::min(least, spent.count());
  }
  return least;
}

}  // namespace

void register_features(CLI::App& app) {
  auto* sub = app.add_subcommand(
      "features", "compute features (log-mel, cepstra) and spectrograms of sound files");
  auto command = std::make_shared<FeaturesCommand>();
  FeaturesCommand& c = *command;
  c.front_end.normalize = "none";
  const char* group = "Files";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return sub->add_option(name, value, help)->group(group);
  };
  add("files", c.files, "sound files")->required();
  add("--out", c.out, "FILE.npy, FILE.txt, or a folder for one .npy a sound");
  add("--png", c.png, "spectrogram: FILE.png, or a folder");
  add("--offset", c.offset, "begin of the segment, s")->check(non_negative());
  add("--duration", c.duration, "length of the segment, s; 0: up to the end")
      ->check(non_negative());
  add("--repeat", c.repeat, "compute so many times, for the speed that is printed")
      ->check(in_range(1, 1e6));
  add_front_end_options(*sub, c.front_end, {"none", "utterance"});
  add_common_options(*sub, c.common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
