#include "tensor/npy.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <set>

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

// Reads the header, a Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  Header parse() {
    Header header;
    std::set<std::string> seen;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (!seen.insert(key).second) fail("repeated key '" + key + "'");
      if (key == "descr") {
        CENTROID_CHECK(peek() != '[', what_, "structured dtypes are not supported");
        header.descr = string();
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
      } else if (key == "shape") {
        header.shape = sizes();
      } else {
        fail("unknown key '" + key + "'");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (peek() != '\0') fail("text after the closing }");
    if (seen.size() != 3) fail("descr, fortran_order or shape is missing");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(concat(what_, "bad header at byte ", at_, ": ", problem));
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
      CENTROID_CHECK(shape.size() < kMaxDims, what_, "more than ", kMaxDims, " dimensions");
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
    if (accept('-')) fail("negative size");
    int64_t value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error == std::errc::result_out_of_range) fail("size of more than 64 bits");
    if (error != std::errc()) fail("expected a size");
    at_ += end - begin;
    return value;
  }

  std::string_view text_;
  const std::string& what_;  // begins each message
  size_t at_ = 0;
};

struct ElementType {
  std::string_view code;  // of the descr, without its byte order
  DType dtype;
};
constexpr ElementType kElementTypes[] = {{"f8", DType::f64}, {"f4", DType::f32}, {"i8", DType::i64},
                                         {"i4", DType::i32}, {"u1", DType::u8},  {"b1", DType::u8}};

DType element_type(const std::string& descr, const std::string& what) {
  for (const auto& [code, dtype] : kElementTypes) {
    const std::string_view orders = size_of(dtype) == 1 ? "|<>=" : "<>=";
    if (descr.ends_with(code) && descr.size() == 3 && orders.find(descr[0]) != orders.npos) {
      return dtype;
    }
  }
  throw Error(concat(what, "dtype '", descr,
                     "' is not supported: expected f8, f4, i8, i4, u1 or b1 (astype converts)"));
}

void swap_bytes(const Tensor& x) {
  dispatch_bytes(x.dtype(), [&]<typename T>() {
    std::byte* at = x.bytes();
    for (int64_t i = 0; i < x.numel(); ++i, at += sizeof(T)) std::reverse(at, at + sizeof(T));
  });
}

void check_booleans(const Tensor& x, const std::string& what) {
  const uint8_t* data = x.data<uint8_t>();
  const auto* end = data + x.numel();
  const auto* bad = std::find_if(data, end, [](uint8_t value) { return value > 1; });
  CENTROID_CHECK(bad == end, what, "boolean ", bad - data, ": expected 0 or 1, got ",
                 static_cast<int>(*bad));
}

Tensor read_npy(const InputFile& in) {
  const std::string what = in.name() + ": npy: ";
  const uint64_t size = in.size();
  unsigned char start[12] = {};
  in.read(0, start, std::min<uint64_t>(size, sizeof start));
  CENTROID_CHECK(size >= 10 && std::memcmp(start, kMagic.data(), kMagic.size()) == 0, what,
                 "not an .npy file (it does not start with \\x93NUMPY)");
  const int major = start[6], minor = start[7];
  CENTROID_CHECK(major >= 1 && major <= 3 && minor == 0, what,
                 "version: expected 1.0, 2.0 or 3.0, got ", major, ".", minor);
  const uint64_t begin = major == 1 ? 10 : 12;
  CENTROID_CHECK(size >= begin, what, "ends inside its header");
  uint64_t length = start[8] | start[9] << 8;
  if (major > 1) length |= uint64_t{start[10]} << 16 | uint64_t{start[11]} << 24;
  CENTROID_CHECK(length <= size - begin, what, "header of ", length, " bytes, but only ",
                 size - begin, " are left (truncated?)");
  CENTROID_CHECK(length <= kMaxHeader, what, "header of ", length, " bytes is too long");
  std::string text(length, '\0');
  in.read(begin, text.data(), length);

  auto [descr, fortran_order, shape] = HeaderParser(text, what).parse();
  const DType dtype = element_type(descr, what);
  const uint64_t bytes = checked_bytes(shape, dtype, in.name() + ": npy");
  const uint64_t left = size - begin - length;
  CENTROID_CHECK(bytes == left, what, shape, " of '", descr, "' needs ", bytes,
                 " bytes, the file has ", left, bytes > left ? " (truncated?)" : "");
  if (fortran_order) std::reverse(shape.begin(), shape.end());
  const Tensor x = empty(shape, dtype, Device{});
  in.read(begin + length, x.bytes(), bytes);
  if (descr[0] == '>') swap_bytes(x);
  if (descr.substr(1) == "b1") check_booleans(x, what);
  if (!fortran_order) return x;
  // Fortran order is the row-major order of the reversed shape.
  Dims reversed;
  for (int d = x.dim() - 1; d >= 0; --d) reversed.push_back(d);
  return raw::contiguous(raw::permute(x, reversed));
}

// The header as numpy.save writes it: padded so that the first size can grow in place to 21 digits
// and the data starts at a multiple of 64.
std::string make_header(const Tensor& x) {
  const auto* type = std::find_if(std::begin(kElementTypes), std::end(kElementTypes),
                                  [&](const ElementType& t) { return t.dtype == x.dtype(); });
  std::string text = concat("{'descr': '", x.dtype() == DType::u8 ? '|' : '<', type->code,
                            "', 'fortran_order': False, 'shape': ", x.shape(), ", }");
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

Tensor load_npy(const std::string& path) { return read_npy(InputFile(path)); }

Tensor parse_npy(std::string_view bytes, const std::string& name) {
  return read_npy(InputFile(bytes, name));
}

}  // namespace centroid
