#pragma once
// A picture of RGB pixels with anti-aliased lines and text, written as PNG.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace centroid::apps {

/// An opaque colour, 8 bits per channel.
struct Color {
  uint8_t r = 0, g = 0, b = 0;
  friend bool operator==(const Color&, const Color&) = default;
};

constexpr Color kWhite{255, 255, 255}, kBlack{0, 0, 0}, kInk{40, 44, 52}, kGrid{226, 229, 233},
    kGrey{176, 180, 186};

/// A position in pixels, (0, 0) at the upper left corner of the picture.
struct Point {
  double x = 0, y = 0;
};

/// A connected line.
using Polyline = std::vector<Point>;

/// Which part of a text lies at the given position.
enum class Anchor { left, middle, right };

/// A picture in memory. Drawing outside of it is allowed and has no effect.
class Canvas {
 public:
  Canvas(int width, int height, Color background = kWhite);

  int width() const { return width_; }
  int height() const { return height_; }

  /// The colour of a pixel; throws outside of the picture.
  Color at(int x, int y) const;

  /// Mixes `color` into one pixel; `opacity` in [0, 1].
  void blend(int x, int y, Color color, double opacity);

  /// Fills [x0, x1) x [y0, y1); edges between pixels are rounded to pixels.
  void fill_rect(double x0, double y0, double x1, double y1, Color color);

  /// Draws lines with round ends, `width` pixels thick, as one shape: crossings do not add up.
  void strokes(const std::vector<Polyline>& lines, double width, Color color, double opacity = 1);
  void line(Point from, Point to, double width, Color color) {
    strokes({{from, to}}, width, color);
  }

  /// Fills a circle.
  void dot(Point centre, double radius, Color color) { line(centre, centre, 2 * radius, color); }

  /// Writes UTF-8 `text` with capitals `0.75 * size` pixels high whose vertical middle is at
  /// `at.y`. `upwards` turns it by 90 degrees, to be read from below; then `at.x` is that middle.
  /// There are glyphs for ASCII and the Russian letters (capitals are drawn as small letters);
  /// other characters become a box.
  void text(Point at, const std::string& text, double size, Color color = kInk,
            Anchor anchor = Anchor::left, bool upwards = false);

  /// The width of `text` in pixels.
  static double text_width(const std::string& text, double size);

  /// The picture as the bytes of a PNG file. Throws in a build without stb.
  std::string png() const;

  /// Writes the picture to `path` as PNG, atomically. Throws if it cannot.
  void save(const std::string& path) const;

 private:
  int width_, height_;
  std::vector<uint8_t> pixels_;  // (height, width, 3)
};

/// Whether this build has what it takes to write PNG files (stb).
bool can_write_png();

namespace detail {

/// One character as strokes, in units of 1/16 of the text size: capitals reach from y = 0 to the
/// baseline y = 12.
struct Glyph {
  double width = 0;
  std::vector<Polyline> strokes;
};

/// The glyph of a Unicode code point.
const Glyph& glyph(char32_t code);

}  // namespace detail
}  // namespace centroid::apps
