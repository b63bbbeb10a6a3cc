#pragma once
// Sound in blocks: recordings of any length in little memory.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "apps/audio/features.h"
#include "apps/audio/files.h"

namespace centroid::audio {

/// Reads a sound file block by block: mono, in -1..1, resampled like load_sound (but for rounding).
class SoundStream {
 public:
  /// `rate`: of the samples given out. `raw_rate` other than 0: the file is no sound file but mono
  /// 16-bit little-endian samples at that rate. Throws as load_sound does for bad headers.
  SoundStream(const std::string& path, int rate, int raw_rate = 0);
  ~SoundStream();
  SoundStream(const SoundStream&) = delete;
  SoundStream& operator=(const SoundStream&) = delete;

  /// The next samples, about `count` of them; empty at the end. Throws, naming the file, for
  /// corrupt data, NaN and infinite samples, and when the file ends before its header says.
  std::vector<float> read(int64_t count = 1 << 16);

  /// Seconds of sound read from the file so far.
  double seconds() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The filterbank of samples that come in pieces: the frames are, bit for bit, those that Fbank
/// gives the whole sound. Parallel.
class FbankStream {
 public:
  /// Throws as Fbank does, and for dither, which needs to know all frames at once.
  explicit FbankStream(const FbankOptions& options);

  /// Takes samples and returns the frames that have become known (maybe none).
  Features push(const std::vector<float>& samples);
  /// The last frames. Throws when the whole sound is shorter than one frame.
  Features finish();

 private:
  Features take(int64_t frames);

  FbankOptions options_;
  Fbank fbank_;   // of whole frames; centred frames are whole ones of a sound with reflected ends
  int64_t left_;  // samples of the first frame that lie before the sound
  int64_t given_ = 0;           // samples pushed
  int64_t known_ = 0;           // frames returned
  int64_t skip_ = 0;            // samples to come that belong to no frame
  bool started_ = false;        // the reflected samples are in place
  std::vector<float> pending_;  // from the first sample of the next frame on
  std::vector<float> tail_;     // the last samples, up to a frame's length
};

/// Copies everything that `in` holds into a new temporary file that vanishes with this object:
/// standard input may be a pipe, and sound files are not read front to back.
class SpooledFile {
 public:
  /// `name` stands for the input in messages. Throws when it is empty or the disk is full.
  SpooledFile(std::FILE* in, const std::string& name);
  const std::string& path() const { return file_.path(); }

 private:
  TemporaryFile file_{"centroid-sound"};
};

/// True for file names with an extension of a kind of sound file (.wav, .flac, .mp3, ...).
bool is_sound_name(const std::string& path);

}  // namespace centroid::audio
