// The stroke font of `Canvas`. A glyph is its width and strokes of points, each point two base-36
// digits x, y in units of 1/16 of the text size: capitals from y = 0 to the baseline c = 12, small
// letters from y = 4, descenders to g = 16. A stroke that begins with '~' is the control polygon of
// a quadratic B-spline: it is smooth and touches the middle of each side; it is closed if it ends
// where it begins.
#include <array>
#include <map>
#include <sstream>

#include "apps/common/canvas.h"

namespace centroid::apps::detail {
namespace {

constexpr std::array<const char*, 95> kAscii = {
    "4",                                   // space
    "0 0008 0b0c",                         // !
    "3 0003 3033",                         // "
    "8 212b 616b 0484 0888",               // #
    "8 ~83800006868c0c09 404c",            // $
    "8 800c ~0040440400 ~48888c4c48",      // %
    "8 ~8c12105053070c5c87",               // &
    "0 0003",                              // '
    "3 ~30030b3e",                         // (
    "3 ~00333b0e",                         // )
    "6 3137 0266 6206",                    // *
    "6 353b 0868",                         // +
    "1 1b1c0e",                            // ,
    "5 0858",                              // -
    "0 0b0c",                              // .
    "6 600d",                              // /
    "7 ~00707c0c00",                       // 0
    "7 13404c",                            // 1
    "7 ~030070750c 0c7c",                  // 2
    "7 ~0200707636 ~36767c0c09",           // 3
    "7 5c500979",                          // 4
    "7 701006 ~0624747c0c09",              // 5
    "7 ~600109 ~05757c0c05",               // 6
    "7 00702c",                            // 7
    "7 ~1060661610 ~06767c0c06",           // 8
    "7 ~0070770700 ~737b1c",               // 9
    "0 0506 0b0c",                         // :
    "1 1516 1b1c0e",                       // ;
    "6 64086c",                            // <
    "6 0666 0a6a",                         // =
    "6 04680c",                            // >
    "6 ~0200606639 3b3c",                  // ?
    "b ~8d0d00b0b979 ~3474793934 7479",    // @
    "8 0c408c 1979",                       // A
    "8 000c ~004070764606 ~0656868c5c0c",  // B
    "8 ~8380000c8c89",                     // C
    "8 000c ~0040808c4c0c",                // D
    "7 70000c7c 0656",                     // E
    "7 70000c 0656",                       // F
    "8 ~8380000c8c87 8757",                // G
    "8 000c 808c 0686",                    // H
    "0 000c",                              // I
    "5 ~50575c0c09",                       // J
    "8 000c 8008 358c",                    // K
    "7 000c7c",                            // L
    "a 0c0057a0ac",                        // M
    "8 0c008c80",                          // N
    "8 ~00808c0c00",                       // O
    "8 0c00 ~005080875707",                // P
    "8 ~00808c0c00 598d",                  // Q
    "8 0c00 ~005080875707 478c",           // R
    "8 ~83800006868c0c09",                 // S
    "8 0080 404c",                         // T
    "8 ~00060c8c8680",                     // U
    "8 004c80",                            // V
    "c 003c629cc0",                        // W
    "8 008c 800c",                         // X
    "8 004680 464c",                       // Y
    "8 00800c8c",                          // Z
    "3 30000e3e",                          // [
    "6 006d",                              // backslash
    "3 00303e0e",                          // ]
    "6 053065",                            // ^
    "7 0e7e",                              // _
    "2 0022",                              // `
    "7 ~04747c0c04 747c",                  // a
    "7 000c ~04747c0c04",                  // b
    "6 ~6664040c6c6a",                     // c
    "7 707c ~04747c0c04",                  // d
    "7 0878 ~7874040c7c7a",                // e
    "5 ~5020252c 0454",                    // f
    "7 ~04747c0c04 ~747c7g0g0e",           // g
    "7 000c ~080474787c",                  // h
    "0 040c 0001",                         // i
    "3 3031 ~343c3g0g",                    // j
    "6 000c 640a 286c",                    // k
    "2 ~000a0c2c",                         // l
    "a 040c ~080454585c ~5854a4a8ac",      // m
    "7 040c ~080474787c",                  // n
    "7 ~04747c0c04",                       // o
    "7 040g ~04747c0c04",                  // p
    "7 747g ~04747c0c04",                  // q
    "5 040c ~080454",                      // r
    "6 ~66640408686c0c0a",                 // s
    "5 ~21292c5c 0454",                    // t
    "7 ~04080c7c7874 747c",                // u
    "6 043c64",                            // v
    "a 042c558ca4",                        // w
    "6 046c 640c",                         // x
    "6 043c 641g",                         // y
    "6 04640c6c",                          // z
    "4 ~40202707 ~07272e4e",               // {
    "0 000e",                              // |
    "4 ~00202747 ~47272e0e",               // }
    "7 ~09265b77",                         // ~
};

constexpr char32_t kRussianFirst = 0x430;  // small letters in the order of Unicode
constexpr std::array<const char*, 32> kRussian = {
    "7 ~04747c0c04 747c",                  // a
    "7 ~600109 ~05757c0c05",               // be
    "6 040c ~043454583808 ~0848686c4c0c",  // ve
    "5 0c0454",                            // ghe
    "8 0e0c8c8e 1c24747c",                 // de
    "7 0878 ~7874040c7c7a",                // ie
    "a 545c 04580c a458ac",                // zhe
    "6 ~0604646838 ~38686c0c0a",           // ze
    "7 040c747c",                          // i
    "7 040c747c ~203250",                  // short i
    "6 040c 640a 286c",                    // ka
    "7 0c24747c",                          // el
    "8 0c0448848c",                        // em
    "7 040c 747c 0878",                    // en
    "7 ~04747c0c04",                       // o
    "7 0c04747c",                          // pe
    "7 040g ~04747c0c04",                  // er
    "6 ~6664040c6c6a",                     // es
    "6 0464 343c",                         // te
    "6 043c 641g",                         // u
    "a 505g ~04a4ac0c04",                  // ef
    "6 046c 640c",                         // ha
    "8 040c8c8e 747c",                     // tse
    "7 747c ~040979",                      // che
    "a 040caca4 545c",                     // sha
    "b 040cbcbe a4ac 545c",                // shcha
    "7 04242c ~2858787c5c2c",              // hard sign
    "8 040c ~0838585c3c0c 848c",           // yeru
    "6 040c ~0848686c4c0c",                // soft sign
    "6 ~0604646c0c0a 2868",                // e
    "a 040c 0838 ~34a4ac3c34",             // yu
    "7 747c ~743404083878 380c",           // ya
};

constexpr const char* kYo = "7 0878 ~7874040c7c7a 2021 5051";
constexpr const char* kUnknown = "7 00707c0c00";

int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

Point mix(Point a, Point b, double t) { return {a.x + t * (b.x - a.x), a.y + t * (b.y - a.y)}; }

// Corner cutting (Chaikin), which converges to the quadratic B-spline.
Polyline smooth(Polyline points) {
  const bool closed = points.front().x == points.back().x && points.front().y == points.back().y;
  for (int round = 0; round < 4; ++round) {
    Polyline next;
    if (!closed) next.push_back(points.front());
    for (size_t i = 0; i + 1 < points.size(); ++i) {
      const bool first = !closed && i == 0, last = !closed && i + 2 == points.size();
      if (!first) next.push_back(mix(points[i], points[i + 1], 0.25));
      if (!last) next.push_back(mix(points[i], points[i + 1], 0.75));
    }
    next.push_back(closed ? next.front() : points.back());
    points = std::move(next);
  }
  return points;
}

Glyph parse(const char* text) {
  std::istringstream in(text);
  std::string word;
  in >> word;
  Glyph glyph;
  glyph.width = digit(word[0]);
  while (in >> word) {
    const bool curved = word[0] == '~';
    Polyline line;
    for (size_t i = curved; i + 1 < word.size(); i += 2) {
      line.push_back({double(digit(word[i])), double(digit(word[i + 1]))});
    }
    glyph.strokes.push_back(curved ? smooth(std::move(line)) : std::move(line));
  }
  return glyph;
}

std::map<char32_t, Glyph> all_glyphs() {
  std::map<char32_t, Glyph> glyphs;
  for (size_t i = 0; i < kAscii.size(); ++i)
    glyphs[static_cast<char32_t>(32 + i)] = parse(kAscii[i]);
  for (size_t i = 0; i < kRussian.size(); ++i) {
    const auto letter = static_cast<char32_t>(kRussianFirst + i);
    glyphs[letter] = glyphs[letter - 32] = parse(kRussian[i]);
  }
  glyphs[0x451] = glyphs[0x401] = parse(kYo);
  return glyphs;
}

}  // namespace

const Glyph& glyph(char32_t code) {
  static const std::map<char32_t, Glyph> glyphs = all_glyphs();
  static const Glyph unknown = parse(kUnknown);
  const auto found = glyphs.find(code);
  return found == glyphs.end() ? unknown : found->second;
}

}  // namespace centroid::apps::detail
