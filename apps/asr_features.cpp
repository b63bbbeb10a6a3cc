// asr features: log-mel features of sound files as arrays, text or pictures.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/audio/context.h"
#include "apps/audio/files.h"
#include "apps/audio/normalize.h"
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
  FbankOptions fbank;
  std::vector<std::string> files;
  std::string out, png, normalize = "none";
  int stack = 1, stride = 1;
  double offset = 0, duration = 0;

  void run() const;
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
  spec.x_step = frame_seconds(fbank, stride);
  spec.upwards = true;
  spec.value_label = normalize == "utterance" ? "log energy, normalised" : "log energy";
  if (stack == 1 && !fbank.use_energy) {
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
  const Fbank compute(fbank);
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const std::string& file : files) {
    const Sound sound = load_sound(file, fbank.rate, offset, duration);
    Rng rng = Rng(common.seed, "dither").fork(file);
    Features f;
    try {
      f = compute(sound, &rng);
    } catch (const Error& error) {
      throw Error(concat(file, ": ", error.what()));
    }
    if (normalize == "utterance") normalize_utterance(f);
    if (stack != 1 || stride != 1) f = stack_frames(f, stack, stride);
    if (!out.empty()) write(file, f);
    if (!png.empty()) draw(file, f);
    const auto [least, most] = std::minmax_element(f.data.begin(), f.data.end());
    results.push_back({{"file", file},
                       {"seconds", sound.seconds()},
                       {"frames", f.frames},
                       {"columns", f.bins},
                       {"min", *least},
                       {"max", *most}});
    if (!common.json) {
      std::printf("%s: %.3f s, %lld frames x %lld, %.3f .. %.3f\n", file.c_str(), sound.seconds(),
                  static_cast<long long>(f.frames), static_cast<long long>(f.bins), *least, *most);
    }
  }
  if (common.json) std::cout << results.dump(1) << "\n";
  std::fflush(stdout);
}

}  // namespace

void add_fbank_options(CLI::App& command, FbankOptions& o) {
  const char* group = "Features";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group(group);
  };
  add("--rate", o.rate, "sample rate in Hz; sounds are resampled to it")->check(positive());
  add("--bins", o.bins, "mel bands")->check(positive());
  add("--frame-length", o.frame_length_ms, "ms")->check(positive());
  add("--frame-shift", o.frame_shift_ms, "ms")->check(positive());
  add("--low-freq", o.low_freq, "lower end of the lowest band, Hz")->check(non_negative());
  add("--high-freq", o.high_freq,
      "upper end of the highest band, Hz; 0 or less: offset from half the rate");
  const auto set_window = [&o](const std::string& name) { o.window = window_from(name); };
  command
      .add_option_function<std::string>("--window", set_window,
                                        "povey, hamming, hanning or rectangular")
      ->check(CLI::IsMember(std::vector<std::string>{"povey", "hamming", "hanning", "rectangular"}))
      ->default_str(name_of(o.window))
      ->group(group);
  add("--preemphasis", o.preemphasis, "x[n] -= a x[n-1]")->check(in_range(0, 1));
  add("--dither", o.dither, "noise added to the samples, in 16-bit steps")->check(non_negative());
  add_switch(command, "snip-edges", o.snip_edges,
             "only whole frames; otherwise frames are centred and the ends reflected")
      ->group(group);
  add_switch(command, "remove-dc", o.remove_dc, "subtract each frame's mean")->group(group);
  add_switch(command, "use-power", o.use_power, "square the spectrum")->group(group);
  add_switch(command, "use-energy", o.use_energy, "log energy as an additional first column")
      ->group(group);
  add("--energy-floor", o.energy_floor, "smallest energy of that column")->check(non_negative());
}

void register_features(CLI::App& app) {
  auto* sub =
      app.add_subcommand("features", "compute log-mel features and spectrograms of sound files");
  auto command = std::make_shared<FeaturesCommand>();
  FeaturesCommand& c = *command;
  std::string group = "Files";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return sub->add_option(name, value, help)->group(group);
  };
  add("files", c.files, "sound files")->required();
  add("--out", c.out, "FILE.npy, FILE.txt, or a folder for one .npy a sound");
  add("--png", c.png, "spectrogram: FILE.png, or a folder");
  add("--offset", c.offset, "begin of the segment, s")->check(non_negative());
  add("--duration", c.duration, "length of the segment, s; 0: up to the end")
      ->check(non_negative());
  add_fbank_options(*sub, c.fbank);
  group = "Features";
  add("--normalize", c.normalize, "none, or utterance: mean 0 and deviation 1 in each band")
      ->check(CLI::IsMember(std::vector<std::string>{"none", "utterance"}));
  add("--stack", c.stack, "frames joined into one")->check(positive());
  add("--stride", c.stride, "frames moved on by")->check(positive());
  add_common_options(*sub, c.common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
