#include <cctype>
#include <charconv>
#include <cstdio>

#include "ptx.h"
#include "vgpu.h"

namespace vgpu {
namespace {

bool is_word_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
         c == '.';
}

class Lexer {
 public:
  Lexer(std::string_view text, Module& module) : text_(text), module_(module) {}

  std::vector<Token> run() {
    tokens_.reserve(text_.size() / 5);
    while (at_ < text_.size()) {
      if (!skip_blank() && !directive()) token();
    }
    tokens_.push_back({});
    return std::move(tokens_);
  }

 private:
  bool starts(std::string_view word) const { return text_.substr(at_, word.size()) == word; }
  void skip_line() { at_ = std::min(text_.find('\n', at_), text_.size()); }

  bool skip_blank() {
    const char c = text_[at_];
    if (c == '\n') line_start_ = true;
    if (std::isspace(static_cast<unsigned char>(c))) return ++at_, true;
    if (starts("//")) return skip_line(), true;
    if (starts("/*")) return at_ = std::min(text_.find("*/", at_), text_.size() - 2) + 2, true;
    return false;
  }

  u64 number_at(size_t& i) const {
    while (i < text_.size() && (text_[i] == ' ' || text_[i] == '\t')) ++i;
    u64 value = 0;
    i = static_cast<size_t>(
        std::from_chars(text_.data() + i, text_.data() + text_.size(), value).ptr - text_.data());
    return value;
  }

  // .loc file line column[, function_name label, inlined_at file line column]
  void location() {
    constexpr std::string_view kInlined = "inlined_at";
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    size_t i = at_ + 5;
    Place p;
    for (u32& n : p.at) n = static_cast<u32>(number_at(i));
    const size_t inlined = text_.substr(0, end).find(kInlined, i);
    if (inlined != text_.npos) {
      i = inlined + kInlined.size();
      for (u32& n : p.inlined_at) n = static_cast<u32>(number_at(i));
    }
    tokens_.push_back({Token::Kind::kLocation, {}, module_.places.size()});
    module_.places.push_back(p);
    at_ = end;
  }

  // Directives that take a line, or, debug sections, a block in braces.
  bool directive() {
    if (!line_start_ || text_[at_] != '.') return false;
    if (starts(".loc\t") || starts(".loc ")) return location(), true;
    if (starts(".file")) {
      size_t i = at_ + 5;
      const u32 id = static_cast<u32>(number_at(i));
      const size_t end = std::min(text_.find('\n', i), text_.size());
      const std::string_view rest = text_.substr(i, end - i);
      const size_t open = rest.find('"'), close = rest.rfind('"');
      if (open != close) module_.files[id] = rest.substr(open + 1, close - open - 1);
      return at_ = end, true;
    }
    if (starts(".version")) return skip_line(), true;
    if (starts(".section")) {
      at_ = text_.find('}', at_);
      return at_ = at_ == text_.npos ? text_.size() : at_ + 1, true;
    }
    return false;
  }

  void token() {
    line_start_ = false;
    const size_t begin = at_;
    const char c = text_[at_];
    Token t;
    if (c == '"') {
      at_ = std::min(text_.find('"', at_ + 1), text_.size() - 1) + 1;
      t.kind = Token::Kind::kString;
      t.text = text_.substr(begin + 1, at_ - begin - 2);
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      while (at_ < text_.size() && std::isalnum(static_cast<unsigned char>(text_[at_]))) ++at_;
      t.kind = Token::Kind::kNumber;
      t.text = text_.substr(begin, at_ - begin);
      t.value = number(t.text);
    } else if (is_word_char(c)) {
      while (at_ < text_.size() && (is_word_char(text_[at_]) || starts("::"))) {
        at_ += text_[at_] == ':' ? 2 : 1;
      }
      t.kind = Token::Kind::kWord;
      t.text = text_.substr(begin, at_ - begin);
    } else {
      ++at_;
      t.kind = Token::Kind::kPunctuation;
      t.text = text_.substr(begin, 1);
    }
    tokens_.push_back(t);
  }

  // Decimal, octal, 0x hexadecimal, 0b binary, with an optional U; and the bits of a float: 0f, 0d.
  static u64 number(std::string_view s) {
    int base = 10;
    if (s.size() > 1 && s[0] == '0') {
      const char kind = static_cast<char>(std::tolower(static_cast<unsigned char>(s[1])));
      const bool bits = (kind == 'f' && s.size() == 10) || (kind == 'd' && s.size() == 18);
      base = kind == 'x' || bits ? 16 : kind == 'b' ? 2 : 8;
      s.remove_prefix(base == 8 ? 1 : 2);
    }
    u64 value = 0;
    const auto end = std::from_chars(s.data(), s.data() + s.size(), value, base).ptr;
    const std::string_view rest = s.substr(static_cast<size_t>(end - s.data()));
    if (!rest.empty() && rest != "U") {
      fault("PTX: number '%.*s'", static_cast<int>(s.size()), s.data());
    }
    return value;
  }

  std::string_view text_;
  Module& module_;
  size_t at_ = 0;
  bool line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text, Module& module) {
  return Lexer(text, module).run();
}

u32 size_of(Type t) {
  switch (t) {
    case Type::kU8:
    case Type::kS8: return 1;
    case Type::kU16:
    case Type::kS16:
    case Type::kF16:
    case Type::kBF16: return 2;
    case Type::kU64:
    case Type::kS64:
    case Type::kF64: return 8;
    default: return 4;
  }
}

Type type_named(std::string_view word) {
  static const std::unordered_map<std::string_view, Type> kTypes = {
      {"pred", Type::kPred}, {"u8", Type::kU8},       {"u16", Type::kU16},      {"u32", Type::kU32},
      {"u64", Type::kU64},   {"s8", Type::kS8},       {"s16", Type::kS16},      {"s32", Type::kS32},
      {"s64", Type::kS64},   {"b8", Type::kU8},       {"b16", Type::kU16},      {"b32", Type::kU32},
      {"b64", Type::kU64},   {"f16", Type::kF16},     {"bf16", Type::kBF16},    {"f32", Type::kF32},
      {"f64", Type::kF64},   {"f16x2", Type::kF16x2}, {"bf16x2", Type::kBF16x2}};
  const auto it = kTypes.find(word);
  return it == kTypes.end() ? Type::kNone : it->second;
}

}  // namespace vgpu
