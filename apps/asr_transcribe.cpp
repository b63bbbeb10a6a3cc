// asr transcribe: recordings of any length to text, subtitles and time-marked words.
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "apps/asr.h"
#include "apps/asr_loss.h"
#include "apps/asr_transcript.h"
#include "apps/audio/ctm.h"
#include "apps/audio/files.h"
#include "apps/audio/subtitles.h"
#include "apps/audio/textgrid.h"
#include "apps/common/args.h"
#include "tensor/file.h"

namespace centroid::apps {

namespace {

namespace fs = std::filesystem;
using asr::Transcript;
using audio::round_to_ms;
using nlohmann::json;

/// A recording and the name its results get, without extension.
struct Recording {
  std::string path, name;  // path "-": standard input
};

struct TranscribeCommand {
  CommonOptions common;
  asr::DecodeOptions decode;
  std::string model, attention, out, statistics = "recording";
  std::vector<std::string> files, formats;
  asr::WindowOptions windows;
  int raw_rate = 0;
  bool times = false;

  void run();
  std::vector<Recording> recordings(int64_t* failed) const;
  void write(const Recording& recording, const Transcript& t, bool several) const;
};

json to_json(const std::vector<audio::TimedWord>& words, const char* key) {
  json list = json::array();
  for (const audio::TimedWord& w : words) {
    list.push_back({{key, w.text},
                    {"begin", round_to_ms(w.begin)},
                    {"end", round_to_ms(w.end)},
                    {"confidence", std::round(w.confidence * 1e4) / 1e4}});
  }
  return list;
}

std::string json_of(const Recording& r, const Transcript& t) {
  json out{{"id", r.name},
           {"audio", r.path},
           {"seconds", t.seconds},
           {"text", t.text},
           {"tokens", to_json(t.symbols, "token")},
           {"words", to_json(t.words, "word")}};
  if (std::isfinite(t.unfinished)) out["unfinished"] = round_to_ms(t.unfinished);
  if (!t.others.empty()) out["others"] = t.others;
  return out.dump() + "\n";
}

std::string ctm_of(const Recording& r, const Transcript& t) {
  // White space separates the fields of a CTM file.
  std::string name = r.name;
  for (char& c : name) c = c == ' ' || c == '\t' ? '_' : c;
  return audio::format_ctm(audio::ctm_entries(name, t.words));
}

std::string textgrid_of(const Transcript& t) {
  audio::TextGrid grid;
  grid.tiers = {audio::interval_tier("words", t.words, t.seconds)};
  grid.end = grid.tiers[0].end;
  return audio::format_textgrid(grid);
}

std::string text_of(const Transcript& t, bool times) {
  std::string text = t.text + "\n";
  if (!times) return text;
  for (const audio::TimedWord& w : t.symbols) {
    char line[64];
    std::snprintf(line, sizeof line, "%9.2f %9.2f  ", w.begin, w.end);
    text += line + w.text + "\n";
  }
  return text;
}

std::string extension_of(const std::string& format) {
  return format == "text" ? ".txt" : format == "textgrid" ? ".TextGrid" : "." + format;
}

/// A file's results are named like it; those of a folder's files keep their place in it.
std::vector<Recording> TranscribeCommand::recordings(int64_t* failed) const {
  std::vector<Recording> found;
  const auto add = [&](const std::string& path, const fs::path& name) {
    found.push_back({path, fs::path(name).replace_extension().generic_string()});
  };
  for (const std::string& file : files) {
    std::error_code error;
    if (file == "-") {
      found.push_back({"-", "stdin"});
    } else if (!fs::is_directory(file, error)) {
      add(file, fs::path(file).filename());
    } else {
      const size_t before = found.size();
      for (const std::string& inside : audio::list_files(file, "")) {
        if (audio::is_sound_name(inside)) add((fs::path(file) / inside).string(), inside);
      }
      if (found.size() > before) continue;
      std::cerr << "error: " << file << ": expected sound files in the folder, found none\n";
      ++*failed;
    }
  }
  // Without files only CTM tells recordings apart by name alone.
  if (out.empty() && formats[0] != "ctm") return found;
  std::set<std::string> names;
  for (const Recording& r : found) {
    CENTROID_CHECK(names.insert(r.name).second, "transcribe: several recordings are named ", r.name,
                   " (their results would be mixed up: run them apart)");
  }
  return found;
}

void TranscribeCommand::write(const Recording& r, const Transcript& t, bool several) const {
  for (const std::string& format : formats) {
    std::string text;
    if (format == "text") text = text_of(t, times);
    if (format == "json") text = json_of(r, t);
    if (format == "ctm") text = ctm_of(r, t);
    if (format == "srt") text = audio::format_srt(audio::make_subtitles(t.words));
    if (format == "vtt") text = audio::format_vtt(audio::make_subtitles(t.words));
    if (format == "textgrid") text = textgrid_of(t);
    if (out.empty()) {
      if (format == "text" && several) std::cout << r.path << ": ";
      std::cout << text << std::flush;
      continue;
    }
    const fs::path path = fs::path(out) / (r.name + extension_of(format));
    audio::make_folder(path.parent_path().string());
    write_file_atomic(path.string(), text.data(), text.size());
  }
}

/// Largest memory this process has used, MiB.
double peak_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void TranscribeCommand::run() {
  apply(common);
  asr::read_decoder_file(decode);
  if (formats.empty()) formats = {common.json ? "json" : "text"};
  CENTROID_CHECK(!out.empty() || formats.size() == 1,
                 "transcribe: several formats: expected --out FOLDER, got none");
  CENTROID_CHECK(raw_rate == 0 || std::count(files.begin(), files.end(), "-") > 0,
                 "transcribe: --raw-rate: expected standard input (-) among the files");
  windows.recording_statistics = statistics == "recording";
  windows.whole = decode.search.nbest > 1;
  asr::validate(windows);
  int64_t failed = 0;
  const std::vector<Recording> list = recordings(&failed);
  asr::TrainedRecognizer recognizer = asr::load_recognizer(model, attention);
  const auto criterion = asr::read_criterion(recognizer.loss, recognizer.vocab.size());
  const asr::Decoder decoder(decode, recognizer.vocab, criterion.get());
  const asr::FrameDecoder heard =
      asr::frame_decoder(decoder, criterion->is_ctc(), recognizer.vocab);
  double seconds = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const Recording& r : list) {
    try {
      std::optional<audio::SpooledFile> spooled;
      if (r.path == "-") spooled.emplace(stdin, "standard input");
      const std::string& path = spooled ? spooled->path() : r.path;
      const Transcript t =
          asr::transcribe(recognizer, path, spooled ? raw_rate : 0, windows, heard);
      seconds += t.seconds;
      if (std::isfinite(t.unfinished)) {
        std::cerr << "warning: " << r.path << ": from " << round_to_ms(t.unfinished)
                  << " s on it was heard what no words of the lexicon are made of (--beam?)\n";
      }
      write(r, t, list.size() > 1);
    } catch (const Error& error) {
      const std::string what = error.what();
      const bool named = what.starts_with(r.path);
      std::cerr << "error: " << (named ? "" : r.path + ": ") << what << "\n";
      ++failed;
    }
  }
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (seconds > 0) {
    std::fprintf(stderr, "%.1f s of sound in %.1f s: real-time factor %.4f, peak memory %.0f MiB\n",
                 seconds, took, took / seconds, peak_mib());
  }
  if (common.json && !out.empty()) {
    std::cout << nlohmann::ordered_json{{"recordings", list.size()},
                                        {"seconds", seconds},
                                        {"seconds_taken", took},
                                        {"peak_mib", peak_mib()}}
                     .dump(2)
              << "\n";
  }
  CENTROID_CHECK(failed == 0, "transcribe: ", failed, " of ", files.size(),
                 " inputs, or recordings in them, could not be transcribed");
}

void add_window_options(CLI::App& sub, TranscribeCommand& command) {
  const char* group = "Long recordings";
  sub.add_option("--window", command.windows.window,
                 "Seconds that the encoder sees at a time; 0: the whole recording in one pass "
                 "(memory grows with its length, the time of full attention with its square)")
      ->check(non_negative())
      ->capture_default_str()
      ->group(group);
  sub.add_option("--overlap", command.windows.overlap,
                 "Seconds that two windows share; between them they are joined, where both are "
                 "silent if possible")
      ->check(non_negative())
      ->capture_default_str()
      ->group(group);
  sub.add_option("--statistics", command.statistics,
                 "Mean and deviation for models that normalise each utterance: of each window, or "
                 "of the whole recording, which is then read in advance")
      ->check(CLI::IsMember({"window", "recording"}))
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void register_transcribe(CLI::App& app) {
  auto command = std::make_shared<TranscribeCommand>();
  CLI::App* sub = app.add_subcommand(
      "transcribe", "Recordings of any length, format and sample rate to text with times");
  const char* group = "Transcription";
  sub->add_option("files", command->files,
                  "Sound files, folders (all sound files in and below them), or - for standard "
                  "input")
      ->required()
      ->group(group);
  sub->add_option("--model", command->model, "Run folder or checkpoint file")
      ->required()
      ->group(group);
  sub->add_option("--attention", command->attention,
                  "Attention to use instead of the one the model was trained with")
      ->group(group);
  sub->add_option("--format", command->formats,
                  "One or, with --out, several of: text, json (a line per recording), srt, vtt "
                  "(subtitles), ctm, textgrid (words)")
      ->delimiter(',')
      ->allow_extra_args(false)  // what follows is a sound file
      ->check(CLI::IsMember({"text", "json", "srt", "vtt", "ctm", "textgrid"}))
      ->default_str("text, or json with --json")
      ->group(group);
  sub->add_option(
         "--out", command->out,
         "Folder for the results; without it: standard output. With --json the length of the "
         "sound, the time and the memory taken are printed then")
      ->group(group);
  sub->add_option("--raw-rate", command->raw_rate,
                  "Standard input is no sound file but mono 16-bit little-endian samples at this "
                  "rate, Hz")
      ->check(CLI::Range(1, 1000000))
      ->group(group);
  sub->add_flag("--times", command->times,
                "In text, also the begin and end of each symbol, in seconds")
      ->group(group);
  add_window_options(*sub, *command);
  asr::add_decode_options(*sub, command->decode);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
