#include "apps/audio/sound_stream.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#ifdef CENTROID_HAVE_SNDFILE
#include <sndfile.h>
#endif
#ifdef CENTROID_HAVE_SAMPLERATE
#include <samplerate.h>
#endif

#include "apps/audio/text.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// libsamplerate's converter, fed piece by piece.
class Resampler {
 public:
  Resampler(const std::string& path, int from, int to) : path_(path) {
    ratio_ = static_cast<double>(to) / from;
#ifdef CENTROID_HAVE_SAMPLERATE
    CENTROID_CHECK(src_is_valid_ratio(ratio_), path, ": from ", from, " to ", to,
                   " Hz: the ratio is beyond 1:256 (is the file's rate right?)");
    int code = 0;
    state_.reset(src_new(SRC_SINC_BEST_QUALITY, 1, &code));
    CENTROID_CHECK(state_, path, ": resampling: ", src_strerror(code));
#else
    throw Error(concat(path, ": from ", from, " to ", to, " Hz: this build cannot resample ",
                       "(install libsamplerate0-dev and rebuild)"));
#endif
  }

  std::vector<float> operator()(const std::vector<float>& in, bool last) {
    std::vector<float> out;
#ifdef CENTROID_HAVE_SAMPLERATE
    const auto room = static_cast<size_t>(ratio_ * static_cast<double>(in.size())) + 4096;
    SRC_DATA job{};
    job.src_ratio = ratio_;
    job.end_of_input = last ? 1 : 0;
    const float kNone = 0;
    size_t used = 0;
    do {
      const size_t have = out.size();
      out.resize(have + room);
      // Without a pointer to samples, even to none, libsamplerate keeps the tail of the sound.
      job.data_in = in.empty() ? &kNone : in.data() + used;
      job.input_frames = static_cast<long>(in.size() - used);
      job.data_out = out.data() + have;
      job.output_frames = static_cast<long>(room);
      const int code = src_process(state_.get(), &job);
      CENTROID_CHECK(code == 0, path_, ": resampling: ", src_strerror(code));
      used += static_cast<size_t>(job.input_frames_used);
      out.resize(have + static_cast<size_t>(job.output_frames_gen));
    } while (used < in.size() || job.output_frames_gen > 0);
#else
    static_cast<void>(last);
    out = in;
#endif
    return out;
  }

 private:
#ifdef CENTROID_HAVE_SAMPLERATE
  struct Free {
    void operator()(SRC_STATE* state) const { src_delete(state); }
  };
  std::unique_ptr<SRC_STATE, Free> state_;
#endif
  std::string path_;
  double ratio_ = 1;
};

}  // namespace

#ifdef CENTROID_HAVE_SNDFILE

struct SoundStream::State {
  std::string path;
  SF_INFO info{};
  std::unique_ptr<SNDFILE, int (*)(SNDFILE*)> file{nullptr, sf_close};
  std::optional<Resampler> resampler;
  int64_t frames = 0;  // read from the file
  bool ended = false;

  std::vector<float> read_mono(int64_t count) {
    const int channels = info.channels;
    std::vector<float> buffer(static_cast<size_t>(count) * channels), mono;
    const sf_count_t got = sf_readf_float(file.get(), buffer.data(), count);
    const int code = sf_error(file.get());
    CENTROID_CHECK(code == SF_ERR_NO_ERROR, path, ": corrupt after frame ", frames + got, ": ",
                   sf_error_number(code));
    mono.reserve(static_cast<size_t>(got));
    const float scale = 1.0f / static_cast<float>(channels);
    for (sf_count_t i = 0; i < got; ++i) {
      float sum = 0;
      for (int c = 0; c < channels; ++c) sum += buffer[i * channels + c];
      mono.push_back(channels == 1 ? sum : sum * scale);
      check_sample(mono.back(), path, frames + i);
    }
    frames += got;
    if (got > 0) return mono;
    ended = true;
    const bool known = info.frames > 0 && info.frames < SF_COUNT_MAX;
    CENTROID_CHECK(!known || frames == info.frames, path, ": truncated: the header promises ",
                   info.frames, " frames, the file holds ", frames);
    CENTROID_CHECK(frames > 0, path, ": the sound is empty (0 frames)");
    return mono;
  }
};

SoundStream::SoundStream(const std::string& path, int rate, int raw_rate)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  if (raw_rate == 0) {
    check_sound_header(path);
  } else {
    std::error_code error;
    const uint64_t bytes = fs::file_size(path, error);
    CENTROID_CHECK(!error, path, ": cannot be read: ", error.message());
    CENTROID_CHECK(bytes > 0 && bytes % 2 == 0, path, ": expected 16-bit samples, got ", bytes,
                   " bytes");
    s.info.samplerate = raw_rate;
    s.info.channels = 1;
    s.info.format = SF_FORMAT_RAW | SF_FORMAT_PCM_16 | SF_ENDIAN_LITTLE;
  }
  s.file.reset(sf_open(path.c_str(), SFM_READ, &s.info));
  CENTROID_CHECK(s.file, path, ": not a sound file that can be read: ", sf_strerror(nullptr));
  if (rate != s.info.samplerate) s.resampler.emplace(path, s.info.samplerate, rate);
}

std::vector<float> SoundStream::read(int64_t count) {
  State& s = *state_;
  while (!s.ended) {
    std::vector<float> samples = s.read_mono(count);
    if (s.resampler) samples = (*s.resampler)(samples, s.ended);
    if (!samples.empty()) return samples;
  }
  return {};
}

double SoundStream::seconds() const {
  return static_cast<double>(state_->frames) / state_->info.samplerate;
}

#else

struct SoundStream::State {};

SoundStream::SoundStream(const std::string& path, int, int) {
  throw Error(
      concat(path, ": this build cannot read sound files (install libsndfile1-dev and rebuild)"));
}
std::vector<float> SoundStream::read(int64_t) { return {}; }
double SoundStream::seconds() const { return 0; }

#endif

SoundStream::~SoundStream() = default;

namespace {

FbankOptions whole_frames(FbankOptions options) {
  options.snip_edges = true;
  return options;
}

}  // namespace

FbankStream::FbankStream(const FbankOptions& options)
    : options_(options), fbank_(whole_frames(options)) {
  CENTROID_CHECK(options.dither == 0, "fbank stream: dither: expected 0, got ", options.dither);
  left_ = options.snip_edges ? 0 : fbank_.frame_length() / 2 - fbank_.frame_shift() / 2;
  skip_ = std::max<int64_t>(0, -left_);
}

Features FbankStream::push(const std::vector<float>& samples) {
  const auto size = static_cast<int64_t>(samples.size());
  const int64_t length = fbank_.frame_length();
  given_ += size;
  tail_.insert(tail_.end(), samples.end() - std::min(size, length), samples.end());
  if (static_cast<int64_t>(tail_.size()) > length) tail_.erase(tail_.begin(), tail_.end() - length);
  const int64_t skipped = std::min(skip_, size);
  skip_ -= skipped;
  pending_.insert(pending_.end(), samples.begin() + skipped, samples.end());
  // A sound shorter than one frame is an error, so that a frame is enough to reflect.
  if (given_ < length) return {0, fbank_.columns(), {}};
  if (!started_ && left_ > 0) {
    const std::vector<float> mirror(pending_.begin(), pending_.begin() + left_);
    pending_.insert(pending_.begin(), mirror.rbegin(), mirror.rend());
  }
  started_ = true;
  return take(fbank_.frames(static_cast<int64_t>(pending_.size())));
}

Features FbankStream::finish() {
  const int64_t length = fbank_.frame_length();
  CENTROID_CHECK(started_, "fbank: the sound is shorter than one frame: ", given_,
                 " samples, a frame is ", length);
  const int64_t total = Fbank(options_).frames(given_);
  if (known_ >= total) return {0, fbank_.columns(), {}};
  const int64_t end = (total - 1) * fbank_.frame_shift() - left_ + length;
  pending_.insert(pending_.end(), tail_.rbegin(),
                  tail_.rbegin() + std::max<int64_t>(0, end - given_));
  return take(total - known_);
}

Features FbankStream::take(int64_t frames) {
  Features out{frames, fbank_.columns(), {}};
  if (frames == 0) return out;
  out.data.resize(static_cast<size_t>(frames * out.bins));
  const int64_t shift = fbank_.frame_shift();
  parallel_for(0, frames, 100, [&](int64_t begin, int64_t end) {
    const auto first = pending_.begin() + begin * shift;
    const Sound part{{first, first + (end - 1 - begin) * shift + fbank_.frame_length()},
                     options_.rate};
    const Features rows = fbank_(part);
    std::copy(rows.data.begin(), rows.data.end(), out.row(begin));
  });
  const int64_t used = std::min(frames * shift, static_cast<int64_t>(pending_.size()));
  pending_.erase(pending_.begin(), pending_.begin() + used);
  skip_ += frames * shift - used;
  known_ += frames;
  return out;
}

SpooledFile::SpooledFile(std::FILE* in, const std::string& name) {
  std::FILE* out = std::fopen(path().c_str(), "wb");
  size_t total = 0, got = 0;
  bool written = out != nullptr;
  std::vector<char> buffer(1 << 16);
  while (written && (got = std::fread(buffer.data(), 1, buffer.size(), in)) > 0) {
    written = std::fwrite(buffer.data(), 1, got, out) == got;
    total += got;
  }
  const bool read = !std::ferror(in);
  if (out) written = std::fclose(out) == 0 && written;
  CENTROID_CHECK(read, name, ": reading failed: ", std::strerror(errno));
  CENTROID_CHECK(written, name, ": cannot be copied to ", path(), " (is the disk full?)");
  CENTROID_CHECK(total > 0, name, ": expected a sound, got nothing");
}

bool is_sound_name(const std::string& path) {
  std::string extension = fs::path(path).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  constexpr const char* kExtensions[] = {".wav", ".flac", ".mp3",  ".ogg", ".oga", ".opus",
                                         ".aif", ".aiff", ".aifc", ".au",  ".snd", ".sph",
                                         ".w64", ".rf64", ".caf",  ".voc"};
  return std::find(std::begin(kExtensions), std::end(kExtensions), extension) !=
         std::end(kExtensions);
}

}  // namespace centroid::audio
