#include "apps/audio/sound.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string_view>
#ifdef CENTROID_HAVE_SNDFILE
#include <sndfile.h>
#endif
#ifdef CENTROID_HAVE_SAMPLERATE
#include <samplerate.h>
#endif

#include "tensor/error.h"
#include "tensor/file.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

#ifdef CENTROID_HAVE_SNDFILE

// libsndfile reads most containers that stop early as if the header had promised less; compressed
// files (FLAC, MP3, Ogg) fail while they are decoded, which load_segment checks.

uint32_t little_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// Walks the chunks of a RIFF WAVE file up to `data`.
void check_wav(const std::string& path, std::ifstream& in, uint64_t file_bytes) {
  uint32_t block = 0, format = 0;
  for (uint64_t at = 12; at + 8 <= file_bytes;) {
    std::string chunk(24, '\0');
    in.clear();
    in.seekg(static_cast<std::streamoff>(at));
    in.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    const std::string_view view = chunk;
    const uint32_t size = little_endian(view.substr(4, 4));
    if (view.starts_with("fmt ")) {
      format = little_endian(view.substr(8, 2));
      block = little_endian(view.substr(20, 2));
    } else if (view.starts_with("data")) {
      const uint64_t present = file_bytes - at - 8;
      if (size == 0xFFFFFFFF || size <= present) return;
      const bool frames = block > 0 && (format == 1 || format == 3 || format == 0xFFFE);
      const uint64_t unit = frames ? block : 1;
      throw Error(concat(path, ": truncated: the header promises ", size / unit,
                         frames ? " frames" : " bytes", ", the file holds ", present / unit));
    }
    at += 8 + uint64_t{size} + size % 2;
  }
}

/// SPHERE: a text header with `sample_count -i N`.
void check_sphere(const std::string& path, const std::string& header, int64_t frames) {
  const size_t at = header.find("sample_count -i ");
  if (at == header.npos) return;
  const long long promised = std::strtoll(header.c_str() + at + 16, nullptr, 10);
  CENTROID_CHECK(promised <= frames, path, ": truncated: the header promises ", promised,
                 " frames, the file holds ", frames);
}

/// The other containers: libsndfile notes the mismatch and goes on.
void check_log(const std::string& path, const std::string& log) {
  for (const std::string_view field :
       {"SSND :", "Data Size   :", "Calculated frame count", "riff :"}) {
    const size_t at = log.find(field);
    if (at == log.npos) continue;
    const std::string line = log.substr(at, log.find('\n', at) - at);
    CENTROID_CHECK(line.find("should be") == line.npos && line.find("does not match") == line.npos,
                   path, ": truncated: the header's size and the file's disagree: ", line);
  }
}

/// Throws, naming both counts, when the WAV, RF64, W64, AIFF, AU or SPHERE file is shorter than its
/// header says. `log` is libsndfile's log of the header, `frames` its frame count. A length of
/// 0xFFFFFFFF ("unknown", written to pipes) is let pass.
void check_not_truncated(const std::string& path, uint64_t bytes, const std::string& log,
                         int64_t frames) {
  std::ifstream in(path, std::ios::binary);
  std::string head(1024, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  if (head.starts_with("RIFF") && head.compare(8, 4, "WAVE") == 0) {
    check_wav(path, in, bytes);
  } else if (head.starts_with("NIST_1A")) {
    check_sphere(path, head, frames);
  } else {
    check_log(path, log);
  }
}

/// What libsndfile noted while it read the header.
std::string log_of(SNDFILE* file) {
  std::string log(16384, '\0');
  const int size = sf_command(file, SFC_GET_LOG_INFO, log.data(), static_cast<int>(log.size()));
  log.resize(static_cast<size_t>(std::max(size, 0)));
  return log;
}

struct Close {
  void operator()(SNDFILE* file) const { sf_close(file); }
};

/// An open sound file whose header has been checked.
struct OpenSound {
  std::unique_ptr<SNDFILE, Close> file;
  SF_INFO info{};

  explicit OpenSound(const std::string& path) {
    std::error_code error;
    CENTROID_CHECK(fs::exists(path, error), path, ": no such file");
    CENTROID_CHECK(fs::is_regular_file(path, error), path,
                   ": expected a sound file, got a folder or device");
    const uint64_t bytes = fs::file_size(path, error);
    CENTROID_CHECK(!error, path, ": cannot be read: ", error.message());
    CENTROID_CHECK(bytes > 0, path, ": expected a sound file, got an empty file");
    file.reset(sf_open(path.c_str(), SFM_READ, &info));
    CENTROID_CHECK(file, path, ": not a sound file that can be read: ", sf_strerror(nullptr));
    CENTROID_CHECK(info.samplerate > 0 && info.channels > 0, path,
                   ": expected a rate and channels above 0, got ", info.samplerate, " Hz and ",
                   info.channels, " channels");
    check_not_truncated(path, bytes, log_of(file.get()), info.frames);
    CENTROID_CHECK(info.frames != 0, path, ": the sound is empty (0 frames)");
  }

  /// Some headers (FLAC and MP3 written to a pipe) do not tell the length.
  bool knows_length() const { return info.frames > 0 && info.frames < SF_COUNT_MAX; }
};

/// Reads up to `count` frames, averaged over channels, in chunks, so that a header that lies about
/// its length cannot make us allocate what it says.
std::vector<float> read_frames(const OpenSound& sound, const std::string& path, sf_count_t count) {
  constexpr sf_count_t kChunk = 1 << 16;
  const int channels = sound.info.channels;
  std::vector<float> samples, buffer(static_cast<size_t>(std::min(count, kChunk)) * channels);
  const float scale = 1.0f / static_cast<float>(channels);
  while (static_cast<sf_count_t>(samples.size()) < count) {
    const sf_count_t want = std::min<sf_count_t>(kChunk, count - samples.size());
    const sf_count_t got = sf_readf_float(sound.file.get(), buffer.data(), want);
    for (sf_count_t i = 0; i < got; ++i) {
      float sum = 0;
      for (int c = 0; c < channels; ++c) sum += buffer[i * channels + c];
      const float value = channels == 1 ? sum : sum * scale;
      check_sample(value, path, static_cast<int64_t>(samples.size()));
      samples.push_back(value);
    }
    if (got <= 0) break;
  }
  const int code = sf_error(sound.file.get());
  CENTROID_CHECK(code == SF_ERR_NO_ERROR, path, ": corrupt after frame ", samples.size(), ": ",
                 sf_error_number(code));
  return samples;
}

Sound load_segment(const std::string& path, double offset, double duration) {
  const OpenSound sound(path);
  const double rate = sound.info.samplerate;
  const bool known = sound.knows_length();
  const sf_count_t total = known ? sound.info.frames : SF_COUNT_MAX;
  const double length = known ? static_cast<double>(total) / rate : INFINITY;
  CENTROID_CHECK(offset <= 0 || offset < length, path, ": the segment starts at ", offset,
                 " s, the sound ends at ", length, " s");
  CENTROID_CHECK(offset + duration <= length + kSegmentSlack, path, ": the segment ends at ",
                 offset + duration, " s, the sound at ", length, " s");
  const auto first = static_cast<sf_count_t>(std::llround(offset * rate));
  if (first > 0) {
    CENTROID_CHECK(sf_seek(sound.file.get(), first, SEEK_SET) == first, path, ": cannot go to ",
                   offset, " s in this file: ", sf_strerror(sound.file.get()));
  }
  sf_count_t count = known ? total - first : SF_COUNT_MAX;
  if (duration > 0) {
    count = std::min(count, static_cast<sf_count_t>(std::llround(std::min(duration * rate, 9e15))));
  }
  Sound out{read_frames(sound, path, count), sound.info.samplerate};
  const auto got = static_cast<sf_count_t>(out.samples.size());
  const auto slack = static_cast<sf_count_t>(std::ceil(kSegmentSlack * rate));
  if (known || duration > 0) {
    CENTROID_CHECK(got == count || (!known && got + slack >= count), path,
                   ": truncated: ", known ? "the header promises " : "the segment needs ",
                   first + count, " frames, the file holds ", first + got);
  }
  CENTROID_CHECK(got > 0, path, ": the sound is empty (0 frames)");
  return out;
}

#endif

void put(std::string* out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) *out += static_cast<char>(value >> (8 * i) & 0xFF);
}

}  // namespace

void check_sample(float value, const std::string& path, int64_t frame) {
  CENTROID_CHECK(std::isfinite(value), path, ": expected finite samples, got ", value, " at frame ",
                 frame);
  CENTROID_CHECK(std::fabs(value) <= kLargestSample, path, ": expected samples of at most ",
                 kLargestSample, " (full scale is 1), got ", value, " at frame ", frame,
                 " (scale the sound, or write it as 16-bit integers)");
}

Sound load_sound(const std::string& path, int rate, double offset, double duration) {
  CENTROID_CHECK(std::isfinite(offset) && offset >= 0 && std::isfinite(duration) && duration >= 0,
                 path, ": expected offset and duration in seconds >= 0, got ", offset, " and ",
                 duration);
  CENTROID_CHECK(rate >= 0, path,
                 ": expected a sample rate above 0 (or 0 to keep the file's), got ", rate);
#ifdef CENTROID_HAVE_SNDFILE
  Sound sound = load_segment(path, offset, duration);
  if (rate == 0 || rate == sound.rate) return sound;
  return resample(sound, rate);
#else
  throw Error(
      concat(path, ": this build cannot read sound files (install libsndfile1-dev and rebuild)"));
#endif
}

double sound_duration(const std::string& path) {
#ifdef CENTROID_HAVE_SNDFILE
  const OpenSound sound(path);
  if (!sound.knows_length()) return load_sound(path).seconds();
  return static_cast<double>(sound.info.frames) / sound.info.samplerate;
#else
  return load_sound(path).seconds();
#endif
}

void check_sound_header(const std::string& path) {
#ifdef CENTROID_HAVE_SNDFILE
  OpenSound sound(path);
#else
  load_sound(path);
#endif
}

Sound resample(const Sound& sound, int rate) {
  CENTROID_CHECK(sound.rate > 0 && rate > 0, "resample: expected sample rates above 0, got ",
                 sound.rate, " and ", rate);
  if (rate == sound.rate) return sound;
#ifdef CENTROID_HAVE_SAMPLERATE
  const double ratio = static_cast<double>(rate) / sound.rate;
  CENTROID_CHECK(src_is_valid_ratio(ratio), "resample: from ", sound.rate, " to ", rate,
                 " Hz: the ratio is beyond 1:256 (is the file's rate right?)");
  Sound out{{}, rate};
  out.samples.resize(
      static_cast<size_t>(std::ceil(static_cast<double>(sound.samples.size()) * ratio)) + 1);
  SRC_DATA job{};
  job.data_in = sound.samples.data();
  job.data_out = out.samples.data();
  job.input_frames = static_cast<long>(sound.samples.size());
  job.output_frames = static_cast<long>(out.samples.size());
  job.src_ratio = ratio;
  const int code = src_simple(&job, SRC_SINC_BEST_QUALITY, 1);
  CENTROID_CHECK(code == 0, "resample: ", src_strerror(code));
  CENTROID_CHECK(job.input_frames_used == job.input_frames, "resample: used ",
                 job.input_frames_used, " of ", job.input_frames, " samples");
  out.samples.resize(static_cast<size_t>(job.output_frames_gen));
  return out;
#else
  throw Error(concat("resample: from ", sound.rate, " to ", rate,
                     " Hz: this build cannot resample (install libsamplerate0-dev and rebuild)"));
#endif
}

void write_wav(const std::string& path, const Sound& sound) {
  CENTROID_CHECK(sound.rate > 0, path, ": expected a sample rate above 0, got ", sound.rate);
  const size_t bytes = sound.samples.size() * 2;
  CENTROID_CHECK(bytes < 0xFFFFFF00u, path, ": too long for a WAV file: ", sound.samples.size(),
                 " samples");
  const auto rate = static_cast<uint32_t>(sound.rate);
  std::string out = "RIFF";
  out.reserve(44 + bytes);
  put(&out, static_cast<uint32_t>(36 + bytes), 4);
  out += "WAVEfmt ";
  // Chunk size, PCM, mono, rate, bytes per second, bytes per frame, bits per sample.
  const std::pair<uint32_t, int> format[] = {{16, 4},       {1, 2}, {1, 2}, {rate, 4},
                                             {rate * 2, 4}, {2, 2}, {16, 2}};
  for (const auto& [value, width] : format) put(&out, value, width);
  out += "data";
  put(&out, static_cast<uint32_t>(bytes), 4);
  for (size_t i = 0; i < sound.samples.size(); ++i) {
    const float value = sound.samples[i];
    CENTROID_CHECK(value >= -1.0f && value <= 1.0f, path, ": expected samples in -1..1, got ",
                   value, " at ", i, " (scale the sound first)");
    // +1.0 has no 16-bit value: the largest one is 1 - 1/32768.
    put(&out, static_cast<uint16_t>(std::min(std::lrint(value * 32768.0f), 32767L)), 2);
  }
  write_file_atomic(path, out.data(), out.size());
}

}  // namespace centroid::audio
