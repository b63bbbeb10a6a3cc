#include "apps/audio/text.h"

#include "apps/audio/files.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr char32_t kInvalid = 0xFFFFFFFF;

/// Decodes one code point at `*at` and moves on; kInvalid when the bytes are not well-formed.
char32_t decode_one(std::string_view text, size_t* at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(*at);
  const int more = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : 3;
  if (first >= 0x80 && (first < 0xC2 || first > 0xF4)) return kInvalid;
  if (*at + more >= text.size()) return kInvalid;
  char32_t code = more == 0 ? first : first & (0x3F >> more);
  for (int i = 1; i <= more; ++i) {
    const unsigned next = byte(*at + i);
    if (next >> 6 != 2) return kInvalid;
    code = code << 6 | (next & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
    return kInvalid;
  *at += more + 1;
  return code;
}

struct Range {
  char32_t first, last;
};

template <size_t N>
bool within(char32_t code, const Range (&ranges)[N]) {
  for (const Range& range : ranges) {
    if (code >= range.first && code <= range.last) return true;
  }
  return false;
}

// Letters in runs at one distance from their lower case: Latin-1, Greek, Cyrillic and Armenian.
struct Shift {
  char32_t first, last;
  int distance;
};
constexpr Shift kShifts[] = {{'A', 'Z', 32},       {0xC0, 0xD6, 32},   {0xD8, 0xDE, 32},
                             {0x178, 0x178, -121}, {0x386, 0x386, 38}, {0x388, 0x38A, 37},
                             {0x38C, 0x38C, 64},   {0x38E, 0x38F, 63}, {0x391, 0x3A1, 32},
                             {0x3A3, 0x3AB, 32},   {0x400, 0x40F, 80}, {0x410, 0x42F, 32},
                             {0x4C0, 0x4C0, 15},   {0x531, 0x556, 48}};
// Latin Extended-A and Cyrillic beyond the basic alphabet alternate upper, lower.
constexpr Range kEvenUpper[] = {{0x100, 0x12F},   {0x132, 0x137}, {0x14A, 0x177}, {0x1E00, 0x1E95},
                                {0x1EA0, 0x1EFF}, {0x460, 0x481}, {0x48A, 0x4BF}, {0x4D0, 0x52F},
                                {0x218, 0x21F},   {0x1DE, 0x1EF}};
constexpr Range kOddUpper[] = {{0x139, 0x148}, {0x179, 0x17E}, {0x4C1, 0x4CE}, {0x1CD, 0x1DC}};
constexpr char32_t kDottedI = 0x130, kFinalSigma = 0x3C2;

char32_t lower(char32_t c) {
  if (c == kDottedI) return 'i';
  for (const Shift& shift : kShifts) {
    if (c >= shift.first && c <= shift.last) return c + shift.distance;
  }
  if (within(c, kEvenUpper)) return c | 1;
  return within(c, kOddUpper) && c % 2 == 1 ? c + 1 : c;
}

char32_t upper(char32_t c) {
  if (c == kFinalSigma) return 0x3A3;
  for (const Shift& shift : kShifts) {
    if (c >= shift.first + shift.distance && c <= shift.last + shift.distance) {
      return c - shift.distance;
    }
  }
  if (within(c, kEvenUpper)) return c & ~char32_t{1};
  return within(c, kOddUpper) && c % 2 == 0 ? c - 1 : c;
}

bool is_space(char32_t c) {
  return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_dash(char32_t c) { return c == '-' || (c >= 0x2010 && c <= 0x2015) || c == 0x2212; }

bool is_apostrophe(char32_t c) { return c == '\'' || c == 0x2019; }

bool is_symbol(char32_t c) {
  if (c < 0x80) {
    return !((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
  }
  constexpr Range kSymbols[] = {
      {0x80, 0xA9},      {0xAB, 0xB4},     {0xB6, 0xB9},     {0xBB, 0xBF},     {0xD7, 0xD7},
      {0xF7, 0xF7},      {0x37E, 0x37E},   {0x387, 0x387},   {0x55A, 0x55F},   {0x589, 0x58A},
      {0x5BE, 0x5BE},    {0x60C, 0x60C},   {0x61B, 0x61F},   {0x66A, 0x66D},   {0x964, 0x965},
      {0x2000, 0x206F},  {0x20A0, 0x20CF}, {0x2100, 0x27BF}, {0x2900, 0x2BFF}, {0x2E00, 0x2E7F},
      {0x3000, 0x3004},  {0x3008, 0x3020}, {0x3030, 0x3030}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE6F},
      {0xFEFF, 0xFEFF},  {0xFF01, 0xFF0F}, {0xFF1A, 0xFF20}, {0xFF3B, 0xFF40}, {0xFF5B, 0xFF65},
      {0x1F000, 0x1FAFF}};
  return within(c, kSymbols);
}

}  // namespace

bool valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (decode_one(text, &at) == kInvalid) return false;
  }
  return true;
}

std::vector<char32_t> code_points(std::string_view text) {
  std::vector<char32_t> codes;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    codes.push_back(decode_one(text, &at));
    CENTROID_CHECK(codes.back() != kInvalid, "text: expected UTF-8, got other bytes at byte ",
                   start);
  }
  return codes;
}

std::string to_utf8(char32_t code) {
  CENTROID_CHECK(code <= 0x10FFFF && (code < 0xD800 || code >= 0xE000),
                 "text: not a Unicode code point: ", static_cast<uint32_t>(code));
  std::string out;
  if (code < 0x80) return {static_cast<char>(code)};
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(kLead[more] | code >> (6 * more));
  for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80 | (code >> (6 * i) & 0x3F));
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  for (const char32_t code : code_points(text)) out += to_utf8(lower(code));
  return out;
}

std::string uppercase(std::string_view text) {
  std::string out;
  for (const char32_t code : code_points(text)) out += to_utf8(upper(code));
  return out;
}

std::string collapse_spaces(std::string_view text) {
  std::string out;
  bool pending = false;
  for (const char32_t code : code_points(text)) {
    if (is_space(code)) {
      pending = !out.empty();
      continue;
    }
    if (pending) out += ' ';
    pending = false;
    out += to_utf8(code);
  }
  return out;
}

std::string strip_punctuation(std::string_view text) {
  const std::vector<char32_t> codes = code_points(text);
  const auto in_word = [&](size_t i) {
    return i < codes.size() && !is_symbol(codes[i]) && !is_space(codes[i]);
  };
  std::string out;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (is_apostrophe(codes[i])) {
      if (i > 0 && in_word(i - 1) && in_word(i + 1)) out += '\'';
    } else if (is_dash(codes[i]) || is_space(codes[i])) {
      out += ' ';
    } else if (!is_symbol(codes[i])) {
      out += to_utf8(codes[i]);
    }
  }
  return collapse_spaces(out);
}

int display_width(std::string_view text) {
  constexpr Range kZero[] = {{0x300, 0x36F},   {0x483, 0x489},   {0x591, 0x5BD},   {0x610, 0x61A},
                             {0x64B, 0x65F},   {0x93C, 0x93C},   {0x941, 0x948},   {0x94D, 0x94D},
                             {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF}, {0x200B, 0x200F}, {0x20D0, 0x20FF},
                             {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
  constexpr Range kWide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0xA4CF},
                             {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},
                             {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},
                             {0x1F300, 0x1F64F}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
  int width = 0;
  for (const char32_t code : code_points(text))
    width += within(code, kZero) ? 0 : within(code, kWide) ? 2 : 1;
  return width;
}

}  // namespace centroid::audio
