#pragma once
// Sound files that hold less than their header promises. libsndfile reads most containers that
// stop early as if the header had promised less; compressed files (FLAC, MP3, Ogg) fail while they
// are decoded, which load_sound checks.
#include <cstdint>
#include <string>

namespace centroid::audio {

/// Throws, naming both counts, when the WAV, RF64, W64, AIFF, AU or SPHERE file at `path` is
/// shorter than its header says. `log` is libsndfile's log of the header, `frames` its frame count.
/// A length of 0xFFFFFFFF ("unknown", written to pipes) is let pass.
void check_not_truncated(const std::string& path, const std::string& log, int64_t frames);

}  // namespace centroid::audio
