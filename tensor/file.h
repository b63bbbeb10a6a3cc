#pragma once
// Whole files: read with every failure noticed, written so that a reader never sees half a file.
#include <cstdint>
#include <string>
#include <string_view>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace centroid {

/// Writes a file under a temporary name in the same folder; `commit` syncs it and renames it to
/// `path`, so that `path` holds the old or the new content and never a part. Without `commit`
/// nothing is left behind. Every failure throws an Error that names `path` and the reason.
class AtomicFile {
 public:
  /// Creates the temporary file. Throws when the folder is missing or not writable, or `path`
  /// exists and is no regular file. A symbolic link is followed.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends bytes. After a failure the temporary file is gone and only destruction is left.
  void write(const void* data, size_t bytes);
  /// Makes the content durable and visible under `path`.
  void commit();

 private:
  [[noreturn]] void fail(const char* action, int error);
  void discard() noexcept;

  std::string path_;  // as given, for messages
  std::string target_, temporary_;
  int fd_ = -1;
};

/// Replaces or creates `path` through an AtomicFile.
void write_file_atomic(const std::string& path, const void* data, size_t bytes);

/// The content of a file; throws an Error that names `path` and the reason.
std::string read_file(const std::string& path);

/// Random access to a regular file, or to bytes in memory, that do not change while they are read.
class InputFile {
 public:
  /// Throws an Error that names `path` and the reason.
  explicit InputFile(const std::string& path);
  /// Memory that the caller keeps; `name` stands for the file in messages.
  InputFile(std::string_view bytes, const std::string& name)
      : path_(name), memory_(bytes), size_(bytes.size()) {}
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& name() const { return path_; }
  uint64_t size() const { return size_; }
  /// Reads exactly `bytes` bytes from `offset`; throws when the file ends before.
  void read(uint64_t offset, void* data, size_t bytes) const;

 private:
  std::string path_;
  std::string_view memory_;
  int fd_ = -1;  // -1: the bytes are in memory
  uint64_t size_ = 0;
};

/// Bytes of a dense array whose shape comes from a file: throws an Error that starts with `what`
/// for negative sizes and for sizes whose product, zeros left out, overflows.
uint64_t checked_bytes(const Shape& shape, DType dtype, const std::string& what);

}  // namespace centroid
