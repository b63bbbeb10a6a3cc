#include "tensor/npy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <optional>

#include "tensor/file.h"
#include "tensor/ops.h"

namespace centroid {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read as little-endian memory");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr uint64_t kMaxHeader = 1 << 20;  // a plain array's header has about 100 bytes

// What the header says.
struct Header {
  std::string descr;
  bool fortran_order = false;
  Shape shape;
};

// Reads the header: a Python dict literal {'descr': '<f4', 'fortran_order': False, 'shape': (2,
// 3)}.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  Header parse() {
    std::optional<std::string> descr;
    std::optional<bool> fortran_order;
    std::optional<Shape> shape;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !descr) {
        CENTROID_CHECK(peek() != '[', name_, ": npy: structured dtypes are not supported");
        descr = string();
      } else if (key == "fortran_order" && !fortran_order) {
        fortran_order = boolean();
      } else if (key == "shape" && !shape) {
        shape = sizes();
      } else {
        fail("unknown or repeated key '" + key + "'");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (peek() != '\0') fail("text after the closing }");
    if (!descr || !fortran_order || !shape) fail("descr, fortran_order or shape is missing");
    return {*descr, *fortran_order, *shape};
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(concat(name_, ": npy: bad header at byte ", at_, ": ", problem));
  }

  // The next character after white space; 0 at the end.
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    if (at_ == text_.size()) return '\0';
    if (text_[at_] == '\0') fail("zero byte");
    return text_[at_];
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(std::string("expected ") + c);
  }

  std::string string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail("expected a string");
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("string without end");
    const std::string value(text_.substr(at_ + 1, end - at_ - 1));
    for (char c : value) {
      if (c < ' ' || c > '~' || c == '\\') fail("unexpected character in a string");
    }
    at_ = end + 1;
    return value;
  }

  bool boolean() {
    peek();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return word == "True";
    }
    fail("expected True or False");
  }

  Shape sizes() {
    Shape shape;
    expect('(');
    while (!accept(')')) {
      if (shape.size() == kMaxDims) {
        throw Error(concat(name_, ": npy: more than ", kMaxDims, " dimensions"));
      }
      shape.push_back(integer());
      if (!accept(',')) {
        if (shape.size() == 1) fail("expected , after the only size of a tuple");
        expect(')');
        break;
      }
    }
    return shape;
  }

  int64_t integer() {
    const bool negative = accept('-');
    int64_t value = 0;
    const size_t begin = (peek(), at_);
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
          __builtin_add_overflow(value, int64_t{text_[at_] - '0'}, &value)) {
        fail("size of more than 64 bits");
      }
    }
    if (at_ == begin) fail("expected a size");
    if (negative) fail("negative size");
    return value;
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
};

struct ElementType {
  std::string_view code;  // of the descr, without its byte order
  DType dtype;
};
constexpr ElementType kElementTypes[] = {{"f8", DType::f64}, {"f4", DType::f32}, {"i8", DType::i64},
                                         {"i4", DType::i32}, {"u1", DType::u8},  {"b1", DType::u8}};

DType element_type(const std::string& descr, const std::string& name) {
  if (!descr.empty()) {
    for (const auto& [code, dtype] : kElementTypes) {
      const bool order_fits = size_of(dtype) == 1 ? std::strchr("|<>=", descr[0]) != nullptr
                                                  : std::strchr("<>=", descr[0]) != nullptr;
      if (order_fits && std::string_view(descr).substr(1) == code) return dtype;
    }
  }
  throw Error(concat(name, ": npy: dtype '", descr,
                     "' is not supported: expected f8, f4, i8, i4, u1 or b1 (astype converts)"));
}

void swap_bytes(const Tensor& x) {
  dispatch_bytes(x.dtype(), [&]<typename T>() {
    std::byte* at = x.bytes();
    for (int64_t i = 0; i < x.numel(); ++i, at += sizeof(T)) std::reverse(at, at + sizeof(T));
  });
}

void check_booleans(const Tensor& x, const std::string& name) {
  const uint8_t* data = x.data<uint8_t>();
  const auto* end = data + x.numel();
  const auto* bad = std::find_if(data, end, [](uint8_t value) { return value > 1; });
  CENTROID_CHECK(bad == end, name, ": npy: boolean ", bad - data, ": expected 0 or 1, got ",
                 static_cast<int>(*bad));
}

// Reads `bytes` bytes from `offset` of a file or of memory.
using Read = std::function<void(uint64_t offset, void* data, size_t bytes)>;

// Fortran order is the row-major order of the reversed shape.
Tensor from_fortran(const Tensor& reversed) {
  Dims order;
  for (int d = reversed.dim() - 1; d >= 0; --d) order.push_back(d);
  return raw::contiguous(raw::permute(reversed, order));
}

Tensor read_npy(uint64_t size, const Read& read, const std::string& name) {
  unsigned char start[12] = {};
  read(0, start, std::min<uint64_t>(size, sizeof start));
  CENTROID_CHECK(size >= 10 && std::memcmp(start, kMagic.data(), kMagic.size()) == 0, name,
                 ": npy: not an .npy file (it does not start with \\x93NUMPY)");
  const int major = start[6], minor = start[7];
  CENTROID_CHECK(major >= 1 && major <= 3 && minor == 0, name,
                 ": npy: version: expected 1.0, 2.0 or 3.0, got ", major, ".", minor);
  const uint64_t begin = major == 1 ? 10 : 12;
  CENTROID_CHECK(size >= begin, name, ": npy: ends inside its header");
  uint64_t length = start[8] | start[9] << 8;
  if (major > 1) length |= uint64_t{start[10]} << 16 | uint64_t{start[11]} << 24;
  CENTROID_CHECK(length <= size - begin, name, ": npy: header of ", length, " bytes, but only ",
                 size - begin, " are left (truncated?)");
  CENTROID_CHECK(length <= kMaxHeader, name, ": npy: header of ", length, " bytes is too long");
  std::string text(length, '\0');
  read(begin, text.data(), length);

  const Header header = HeaderParser(text, name).parse();
  const DType dtype = element_type(header.descr, name);
  const uint64_t bytes = checked_bytes(header.shape, dtype, name + ": npy");
  const uint64_t left = size - begin - length;
  CENTROID_CHECK(bytes == left, name, ": npy: ", header.shape, " of '", header.descr, "' needs ",
                 bytes, " bytes, the file has ", left, bytes > left ? " (truncated?)" : "");
  Shape shape = header.shape;
  if (header.fortran_order) std::reverse(shape.begin(), shape.end());
  const Tensor x = empty(shape, dtype);
  if (bytes > 0) read(begin + length, x.bytes(), bytes);
  if (header.descr[0] == '>') swap_bytes(x);
  if (header.descr.substr(1) == "b1") check_booleans(x, name);
  return header.fortran_order && x.dim() > 1 ? from_fortran(x) : x;
}

// The header as numpy.save writes it: padded so that the first size can grow in place to 21 digits
// and the data starts at a multiple of 64.
std::string make_header(const Tensor& x) {
  std::string code;
  for (const auto& type : kElementTypes) {
    if (type.dtype == x.dtype() && code.empty()) code = type.code;
  }
  std::string text = "{'descr': '" + std::string(code == "u1" ? "|" : "<") + code +
                     "', 'fortran_order': False, 'shape': " + to_string(x.shape()) + ", }";
  if (x.dim() > 0) text.append(21 - std::to_string(x.size(0)).size(), ' ');
  text.append(63 - (10 + text.size()) % 64, ' ');
  text += '\n';
  std::string header(kMagic);
  header += {1, 0, static_cast<char>(text.size() & 255), static_cast<char>(text.size() >> 8)};
  return header + text;
}

}  // namespace

void save_npy(const std::string& path, const Tensor& x) {
  CENTROID_CHECK(x.dtype() != DType::bf16, path,
                 ": npy: NumPy has no bf16 (raw::cast to f32 first, or use safetensors)");
  const Tensor host = raw::contiguous(raw::to(x, Device{}));
  const std::string header = make_header(host);
  AtomicFile file(path);
  file.write(header.data(), header.size());
  file.write(host.bytes(), host.numel() * size_of(host.dtype()));
  file.commit();
}

Tensor load_npy(const std::string& path) {
  const InputFile file(path);
  return read_npy(
      file.size(),
      [&](uint64_t offset, void* data, size_t bytes) { file.read(offset, data, bytes); }, path);
}

Tensor parse_npy(std::string_view bytes, const std::string& name) {
  return read_npy(
      bytes.size(),
      [&](uint64_t offset, void* data, size_t count) {
        if (count > 0) std::memcpy(data, bytes.data() + offset, count);
      },
      name);
}

}  // namespace centroid
