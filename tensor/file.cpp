#include "tensor/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tensor/error.h"

namespace centroid {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTransfer = size_t{1} << 30;  // Linux moves at most 2 GiB in one call

std::string reason(int error) { return std::strerror(error); }

int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int fd;
  do fd = ::open(path, flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

// Opens a file for reading and stats it.
int open_input(const std::string& path, struct stat& info) {
  const int fd = open_retrying(path.c_str(), O_RDONLY);
  CENTROID_CHECK(fd >= 0, "read: cannot open ", path, ": ", reason(errno));
  const bool known = ::fstat(fd, &info) == 0;
  const int error = known ? EISDIR : errno;
  if (!known || S_ISDIR(info.st_mode)) {
    ::close(fd);
    throw Error(concat("read: cannot read ", path, ": ", reason(error)));
  }
  return fd;
}

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// Makes a rename durable. Some file systems cannot sync folders and say so: then there is nothing
// to do.
int sync_folder(const std::string& folder) {
  const int fd = open_retrying(folder.c_str(), O_RDONLY | O_DIRECTORY);
  if (fd < 0) return errno;
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error == EINVAL || error == ENOTSUP || error == EROFS ? 0 : error;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path), target_(path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  CENTROID_CHECK(!fs::exists(status) || fs::is_regular_file(status), "write: cannot replace ", path,
                 ": it exists and is not a regular file");
  if (fs::is_symlink(path, error) && fs::exists(status))
    target_ = fs::canonical(path, error).string();
  if (error) target_ = path;
  // The temporary name does not contain the final one, which may be as long as names can be.
  static std::atomic<uint64_t> counter{0};
  const std::string prefix = folder_of(target_) + "/.centroid-" + std::to_string(::getpid()) + "-";
  do {
    temporary_ = prefix + std::to_string(counter++) + ".tmp";
    fd_ = open_retrying(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  CENTROID_CHECK(fd_ >= 0, "write: cannot create ", path, ": ", reason(errno));
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::fail(const char* action, int error) {
  discard();
  throw Error(concat("write: cannot ", action, " ", path_, ": ", reason(error)));
}

void AtomicFile::write(const void* data, size_t bytes) {
  CENTROID_CHECK(fd_ >= 0, "write: ", path_, " was already committed or has failed");
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(fd_, at, std::min(bytes, kMaxTransfer));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write", written < 0 ? errno : ENOSPC);
    at += written;
    bytes -= written;
  }
}

void AtomicFile::commit() {
  CENTROID_CHECK(fd_ >= 0, "write: ", path_, " was already committed or has failed");
  if (::fsync(fd_) != 0) fail("sync", errno);
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) fail("close", errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("rename a temporary file to", errno);
  temporary_.clear();
  if (const int error = sync_folder(folder_of(target_))) fail("sync the folder of", error);
}

void write_file_atomic(const std::string& path, const void* data, size_t bytes) {
  AtomicFile file(path);
  file.write(data, bytes);
  file.commit();
}

std::string read_file(const std::string& path) {
  struct stat info {};
  const int fd = open_input(path, info);
  std::string content;
  size_t size = 0;
  ssize_t got = 0;
  // One byte more than the file is said to hold: then the end is seen without growing the buffer.
  content.resize(S_ISREG(info.st_mode) ? info.st_size + 1 : 1 << 16);
  do {
    if (size == content.size()) content.resize(2 * size);
    got = ::read(fd, content.data() + size, content.size() - size);
    if (got > 0) size += got;
  } while (got > 0 || (got < 0 && errno == EINTR));
  const int error = errno;
  ::close(fd);
  CENTROID_CHECK(got == 0, "read: cannot read ", path, ": ", reason(error));
  content.resize(size);
  return content;
}

InputFile::InputFile(const std::string& path) : path_(path) {
  struct stat info {};
  const int fd = open_input(path, info);
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(concat("read: cannot read ", path, ": it is not a regular file"));
  }
  fd_ = fd;
  size_ = info.st_size;
}

InputFile::~InputFile() { ::close(fd_); }

void InputFile::read(uint64_t offset, void* data, size_t bytes) const {
  if (fd_ < 0 && bytes > 0 && offset + bytes <= size_) {
    std::memcpy(data, memory_.data() + offset, bytes);
    return;
  }
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, at, std::min(bytes, kMaxTransfer), offset);
    if (got < 0 && errno == EINTR) continue;
    CENTROID_CHECK(got >= 0, "read: cannot read ", path_, ": ", reason(errno));
    CENTROID_CHECK(got > 0, "read: ", path_, " ended ", bytes,
                   " bytes early (was it changed while it was read?)");
    at += got;
    offset += got;
    bytes -= got;
  }
}

uint64_t checked_bytes(const Shape& shape, DType dtype, const std::string& what) {
  // Zeros are left out: strides are products of all other sizes and must not overflow either.
  int64_t product = size_of(dtype);
  bool empty = false;
  for (int64_t size : shape) {
    CENTROID_CHECK(size >= 0, what, ": shape ", shape, ": negative size");
    empty |= size == 0;
    CENTROID_CHECK(size == 0 || !__builtin_mul_overflow(product, size, &product), what, ": shape ",
                   shape, ": more bytes than 64 bits count");
  }
  return empty ? 0 : product;
}

}  // namespace centroid
