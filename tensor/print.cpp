// Tensors as text, by NumPy's rules (numpy.set_printoptions at its defaults).
#include <algorithm>
#include <bit>
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

void trim_zeros(std::string& text) { text.erase(text.find_last_not_of('0') + 1); }

// `before`.`after` of a number in positional notation, or `before`.`after`e`exponent`.
struct Parts {
  std::string before, after, exponent;
};

Parts split_scientific(const std::string& text) {
  const size_t e = text.find('e'), point = std::min(e, text.find('.'));
  Parts parts{text.substr(0, point), "", text.substr(e + 1)};
  if (point < e) parts.after = text.substr(point + 1, e - point - 1);
  return parts;
}

// Shortest digits that read back as the value, or, when those go on for longer than `precision`
// after the point, the value rounded there.
template <typename T>
Parts scientific_parts(T value, int precision) {
  Parts parts = split_scientific(chars(value, std::chars_format::scientific));
  if (static_cast<int>(parts.after.size()) > precision) {
    parts = split_scientific(chars(value, std::chars_format::scientific, precision));
  }
  trim_zeros(parts.after);
  return parts;
}

template <typename T>
Parts positional_parts(T value, int precision) {
  const Parts shortest = scientific_parts(value, 99);
  const bool negative = shortest.before[0] == '-';
  std::string digits = shortest.before.substr(negative) + shortest.after;
  const int exponent = std::stoi(shortest.exponent);
  if (exponent < 0) digits.insert(0, -exponent, '0');
  const size_t point = std::max(exponent, 0) + 1;
  if (digits.size() < point) digits.append(point - digits.size(), '0');
  Parts parts{negative ? "-" : "", digits.substr(point), ""};
  parts.before.append(digits, 0, point);
  if (static_cast<int>(parts.after.size()) > precision) {
    const std::string rounded = chars(value, std::chars_format::fixed, precision);
    parts.before = rounded.substr(0, rounded.find('.'));
    parts.after = rounded.substr(rounded.find('.') + 1);
  }
  trim_zeros(parts.after);
  return parts;
}

std::string nonfinite_name(double value) {
  return std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
}

std::string pad_left(const std::string& text, size_t width) {
  return std::string(width > text.size() ? width - text.size() : 0, ' ') + text;
}

// Writes the floats of one tensor to a common width: scientific when they span too much.
template <typename T>
class FloatFormat {
 public:
  explicit FloatFormat(const std::vector<T>& values) {
    T largest = 0, smallest = INFINITY;
    for (T value : values) {
      if (!std::isfinite(value) || value == 0) continue;
      largest = std::max(largest, std::abs(value));
      smallest = std::min(smallest, std::abs(value));
    }
    scientific_ = largest > 0 &&
                  (largest >= kLargest<T> || smallest < T(1e-4) || largest / smallest > T(1000));
    for (T value : values) {
      if (!std::isfinite(value)) continue;
      const Parts parts = parts_of(value);
      before_ = std::max(before_, parts.before.size());
      after_ = std::max(after_, parts.after.size());
      exponent_ = std::max(exponent_, parts.exponent.size());
    }
    const size_t tail = 1 + after_ + (exponent_ > 0 ? 1 + exponent_ : 0);
    width_ = before_ + tail;
    for (T value : values) {
      if (!std::isfinite(value)) width_ = std::max(width_, nonfinite_name(value).size());
    }
    before_ = width_ - tail;
  }

  std::string operator()(T value) const {
    if (!std::isfinite(value)) return pad_left(nonfinite_name(value), width_);
    if (!scientific_) {
      Parts parts = parts_of(value);
      parts.after.resize(after_, ' ');
      return pad_left(parts.before, before_) + '.' + parts.after;
    }
    // Beyond the shortest digits come the value's own, not zeros.
    const Parts parts =
        split_scientific(chars(value, std::chars_format::scientific, static_cast<int>(after_)));
    const std::string number = parts.exponent.substr(1);
    return pad_left(parts.before, before_) + '.' + parts.after + 'e' + parts.exponent[0] +
           std::string(exponent_ - 1 - number.size(), '0') + number;
  }

 private:
  Parts parts_of(T value) const {
    return scientific_ ? scientific_parts(value, kPrecision) : positional_parts(value, kPrecision);
  }

  bool scientific_ = false;
  size_t before_ = 0, after_ = 0, exponent_ = 0;  // longest of each, in characters
  size_t width_ = 0;
};

template <typename T>
class IntegerFormat {
 public:
  explicit IntegerFormat(const std::vector<T>& values) {
    for (T value : values) width_ = std::max(width_, std::to_string(value).size());
  }
  std::string operator()(T value) const { return pad_left(std::to_string(value), width_); }

 private:
  size_t width_ = 0;
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
    Parts parts = positional ? positional_parts(value, 99) : scientific_parts(value, 99);
    if (positional) return parts.before + '.' + (parts.after.empty() ? "0" : parts.after);
    if (!parts.after.empty()) parts.before += '.' + parts.after;
    return parts.before + 'e' + parts.exponent;
  }
}

// A float tensor's element as something that has arithmetic.
template <typename T>
auto printable(T value) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return std::bit_cast<float>(uint32_t{value.bits} << 16);
  } else {
    return value;
  }
}

// Lays out the brackets. The elements shown are visited twice, first to choose the format.
template <typename T>
class Printer {
  using Value = decltype(printable(T{}));

 public:
  explicit Printer(const Tensor& x)
      : data_(x.data<T>()),
        shape_(x.shape()),
        strides_(x.strides()),
        summarise_(x.numel() > kThreshold) {}

  std::string print() const {
    if (shape_.empty()) return scalar_text(printable(*data_));
    std::vector<Value> shown;
    collect(0, 0, shown);
    if constexpr (std::is_floating_point_v<Value>) {
      return nested(0, 0, " ", FloatFormat<Value>(shown));
    } else {
      return nested(0, 0, " ", IntegerFormat<Value>(shown));
    }
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

  void collect(int dim, int64_t offset, std::vector<Value>& shown) const {
    if (dim == shape_.size()) return shown.push_back(printable(data_[offset]));
    for_each_shown(dim, [&](int64_t i) {
      if (i >= 0) collect(dim + 1, offset + i * strides_[dim], shown);
    });
  }

  template <typename Format>
  std::string nested(int dim, int64_t offset, const std::string& indent,
                     const Format& format) const {
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
  template <typename Format>
  std::string row(int64_t offset, const std::string& indent, const Format& format) const {
    const int dim = shape_.size() - 1;
    const size_t width = kLineWidth - (dim + 1);
    std::string text, line = indent;
    for_each_shown(dim, [&](int64_t i) {
      const std::string word = i < 0 ? "..." : format(printable(data_[offset + i * strides_[dim]]));
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
  const Tensor host = x.device().kind == DeviceKind::cpu ? x : raw::to(x, Device{});
  if (x.dtype() == DType::bf16) return Printer<Bf16>(host).print();
  return dispatch_numeric(x.dtype(), "print",
                          [&]<typename T>() { return Printer<T>(host).print(); });
}

std::ostream& operator<<(std::ostream& out, const Tensor& x) { return out << to_string(x); }

}  // namespace centroid
