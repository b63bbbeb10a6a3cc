// Tensors as text, by NumPy's rules (numpy.set_printoptions at its defaults).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "tensor/ops.h"

namespace centroid {
namespace {

constexpr int kPrecision = 8;         // digits after the point, at most
constexpr int64_t kThreshold = 1000;  // tensors of more elements are summarised ...
constexpr int64_t kEdge = 3;          // ... to so many at either end of each dimension
constexpr size_t kLineWidth = 75;
// From here on positional notation would show digits that the type does not hold.
template <typename T>
constexpr T kLargest = sizeof(T) == 8 ? 1e8 : 1e6;

template <typename T, typename... Options>
std::string chars(T value, Options... options) {
  char buffer[512];  // 1e308 in positional notation is the longest
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, options...);
  return {buffer, end.ptr};
}

// A number's digits: `before`.`after` in positional notation, `before`.`after`e`exponent`.
struct Parts {
  std::string before, after, exponent;
};

Parts split(const std::string& text) {
  const size_t e = std::min(text.find('e'), text.size()), point = std::min(e, text.find('.'));
  Parts parts{text.substr(0, point), "", e < text.size() ? text.substr(e + 1) : ""};
  if (point < e) parts.after = text.substr(point + 1, e - point - 1);
  return parts;
}

// Shortest digits that read back as the value, or, when those go on for longer than `precision`
// after the point, the value rounded there.
template <typename T>
Parts parts_of(T value, std::chars_format format, int precision = 999) {
  Parts parts = split(chars(value, format));
  if (static_cast<int>(parts.after.size()) > precision) {
    parts = split(chars(value, format, precision));
  }
  parts.after.erase(parts.after.find_last_not_of('0') + 1);
  return parts;
}

std::string nonfinite_name(double value) {
  return std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
}

// Writes the numbers of one tensor to a common width; floats in scientific notation when they span
// too much.
template <typename T>
class Format {
 public:
  explicit Format(const std::vector<T>& values) {
    if constexpr (std::is_floating_point_v<T>) measure(values);
    for (T value : values) width_ = std::max(width_, text_of(value).size());
  }

  std::string operator()(T value) const {
    const std::string text = text_of(value);
    return std::string(width_ - text.size(), ' ') + text;
  }

 private:
  void measure(const std::vector<T>& values) {
    T largest = 0, smallest = INFINITY;
    for (T value : values) {
      if (!std::isfinite(value) || value == 0) continue;
      largest = std::max(largest, std::abs(value));
      smallest = std::min(smallest, std::abs(value));
    }
    if (largest > 0 &&
        (largest >= kLargest<T> || smallest < T(1e-4) || largest / smallest > T(1000))) {
      notation_ = std::chars_format::scientific;
    }
    for (T value : values) {
      if (!std::isfinite(value)) continue;
      const Parts parts = parts_of(value, notation_, kPrecision);
      after_ = std::max(after_, parts.after.size());
      exponent_ = std::max(exponent_, parts.exponent.size());
    }
  }

  std::string text_of(T value) const {
    if constexpr (std::is_integral_v<T>) {
      return std::to_string(value);
    } else {
      if (!std::isfinite(value)) return nonfinite_name(value);
      if (notation_ == std::chars_format::fixed) {
        Parts parts = parts_of(value, notation_, kPrecision);
        parts.after.resize(after_, ' ');
        return parts.before + '.' + parts.after;
      }
      // Beyond the shortest digits come the value's own, not zeros.
      Parts parts = split(chars(value, notation_, static_cast<int>(after_)));
      parts.exponent.insert(1, exponent_ - parts.exponent.size(), '0');
      return parts.before + '.' + parts.after + 'e' + parts.exponent;
    }
  }

  std::chars_format notation_ = std::chars_format::fixed;
  size_t after_ = 0, exponent_ = 0, width_ = 0;  // longest of each, in characters
};

// A number by itself: positional unless it would be long.
template <typename T>
std::string scalar_text(T value) {
  if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else {
    if (!std::isfinite(value)) return nonfinite_name(value);
    const double size = std::abs(static_cast<double>(value));
    const bool positional = size == 0 || (size >= 1e-4 && size < (sizeof(T) == 8 ? 1e16 : 1e6));
    Parts parts =
        parts_of(value, positional ? std::chars_format::fixed : std::chars_format::scientific);
    if (positional) return parts.before + '.' + (parts.after.empty() ? "0" : parts.after);
    if (!parts.after.empty()) parts.before += '.' + parts.after;
    return parts.before + 'e' + parts.exponent;
  }
}

// Lays out the brackets. The elements shown are visited twice, first to choose the format.
template <typename T>
class Printer {
 public:
  explicit Printer(const Tensor& x)
      : data_(x.data<T>()),
        shape_(x.shape()),
        strides_(x.strides()),
        summarise_(x.numel() > kThreshold) {}

  std::string print() const {
    if (shape_.empty()) return scalar_text(*data_);
    std::vector<T> shown;
    collect(0, 0, shown);
    return nested(0, 0, " ", Format<T>(shown));
  }

 private:
  // Calls f(i) for the positions of a dimension that are shown; f(-1) where some are left out.
  template <typename F>
  void for_each_shown(int dim, const F& f) const {
    const int64_t n = shape_[dim];
    const bool cut = summarise_ && n > 2 * kEdge;
    for (int64_t i = 0; i < (cut ? kEdge : n); ++i) f(i);
    if (!cut) return;
    f(-1);
    for (int64_t i = n - kEdge; i < n; ++i) f(i);
  }

  void collect(int dim, int64_t offset, std::vector<T>& shown) const {
    if (dim == shape_.size()) return shown.push_back(data_[offset]);
    for_each_shown(dim, [&](int64_t i) {
      if (i >= 0) collect(dim + 1, offset + i * strides_[dim], shown);
    });
  }

  std::string nested(int dim, int64_t offset, const std::string& indent,
                     const Format<T>& format) const {
    const int dims_left = shape_.size() - dim;
    if (dims_left == 1) return row(offset, indent, format);
    std::string text;
    for_each_shown(dim, [&](int64_t i) {
      text += text.empty() ? "[" : std::string(dims_left - 1, '\n') + indent;
      text += i < 0 ? "..." : nested(dim + 1, offset + i * strides_[dim], indent + ' ', format);
    });
    return text + ']';
  }

  // Elements of the last dimension, broken into lines that leave room for the closing brackets.
  std::string row(int64_t offset, const std::string& indent, const Format<T>& format) const {
    const int dim = shape_.size() - 1;
    const size_t width = kLineWidth - (dim + 1);
    std::string text, line = indent;
    for_each_shown(dim, [&](int64_t i) {
      const std::string word = i < 0 ? "..." : format(data_[offset + i * strides_[dim]]);
      if (line.size() > indent.size()) {
        if (line.size() + 1 + word.size() > width) {
          line.erase(line.find_last_not_of(' ') + 1);
          text += line + '\n';
          line = indent;
        } else {
          line += ' ';
        }
      }
      line += word;
    });
    return '[' + (text + line).substr(indent.size()) + ']';
  }

  const T* data_;
  Shape shape_;
  Strides strides_;
  bool summarise_;
};

}  // namespace

std::string to_string(const Tensor& x) {
  if (!x.defined()) return "undefined";
  if (x.numel() == 0) return "[]";
  const Tensor numeric = x.dtype() == DType::bf16 ? raw::cast(x, DType::f32) : x;
  const Tensor host = raw::to(numeric, Device{});
  return dispatch_numeric(host.dtype(), "print",
                          [&]<typename T>() { return Printer<T>(host).print(); });
}

std::ostream& operator<<(std::ostream& out, const Tensor& x) { return out << to_string(x); }

}  // namespace centroid
