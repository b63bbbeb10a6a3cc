#pragma once
// The one exception type of Centroid and the check that throws it.
#include <sstream>
#include <stdexcept>
#include <string>

namespace centroid {

/// Every error a user can cause. The message reads `what: expected, got (hint)`.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Concatenates anything that can be streamed; shapes, dtypes and devices print readably.
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace centroid

/// Throws `centroid::Error` with the concatenated parts unless `cond` holds. The parts are only
/// evaluated on failure.
#define CENTROID_CHECK(cond, ...)                           \
  do {                                                      \
    if (!(cond)) [[unlikely]]                               \
      throw centroid::Error(centroid::concat(__VA_ARGS__)); \
  } while (false)
