#include "apps/common/canvas.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"
#include "tensor/file.h"

#ifdef CENTROID_HAVE_STB
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop
#endif

namespace centroid::apps {
namespace {

constexpr double kLetterGap = 3;     // between two glyphs, in units of the font
constexpr double kCapMiddle = 6;     // of the capitals, from their top
constexpr double kFontUnits = 16;    // per text size
constexpr double kMaxPicture = 2e8;  // pixels

// Bytes that are not UTF-8 come out as U+FFFD, one each.
std::u32string decode_utf8(const std::string& text) {
  std::u32string codes;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const int length = byte < 0x80       ? 1
                       : byte >> 5 == 6  ? 2
                       : byte >> 4 == 14 ? 3
                       : byte >> 3 == 30 ? 4
                                         : 0;
    char32_t code = length == 1 ? byte : byte & (0x7f >> length);
    bool valid = length > 0 && i + static_cast<size_t>(length) <= text.size();
    for (int k = 1; valid && k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<size_t>(k)]);
      valid = next >> 6 == 2;
      code = code << 6 | (next & 0x3f);
    }
    codes.push_back(valid ? code : 0xfffd);
    i += valid ? static_cast<size_t>(length) : 1;
  }
  return codes;
}

double distance_to_segment(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double length2 = dx * dx + dy * dy;
  double t = length2 > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length2 : 0;
  t = std::clamp(t, 0.0, 1.0);
  return std::hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

struct Box {
  int x0, y0, x1, y1;  // half open
};

// The pixels that a segment with this reach can touch, inside the picture.
Box touched(Point a, Point b, double reach, int width, int height) {
  const auto low = [](double v, int limit) {
    return static_cast<int>(std::clamp(std::floor(v), 0.0, double(limit)));
  };
  return {low(std::min(a.x, b.x) - reach, width), low(std::min(a.y, b.y) - reach, height),
          low(std::max(a.x, b.x) + reach + 1, width), low(std::max(a.y, b.y) + reach + 1, height)};
}

}  // namespace

Canvas::Canvas(int width, int height, Color background) : width_(width), height_(height) {
  CENTROID_CHECK(width > 0 && height > 0 && double(width) * height <= kMaxPicture,
                 "picture: expected a size from 1 x 1 to ", kMaxPicture, " pixels, got ", width,
                 " x ", height);
  pixels_.resize(size_t(width) * size_t(height) * 3);
  fill_rect(0, 0, width, height, background);
}

Color Canvas::at(int x, int y) const {
  CENTROID_CHECK(x >= 0 && y >= 0 && x < width_ && y < height_, "picture: expected a pixel inside ",
                 width_, " x ", height_, ", got (", x, ", ", y, ")");
  const uint8_t* p = &pixels_[(size_t(y) * size_t(width_) + size_t(x)) * 3];
  return {p[0], p[1], p[2]};
}

void Canvas::blend(int x, int y, Color color, double opacity) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_) return;
  uint8_t* p = &pixels_[(size_t(y) * size_t(width_) + size_t(x)) * 3];
  const auto mix = [&](uint8_t old, uint8_t now) {
    return static_cast<uint8_t>(std::lround(old + opacity * (double(now) - old)));
  };
  p[0] = mix(p[0], color.r);
  p[1] = mix(p[1], color.g);
  p[2] = mix(p[2], color.b);
}

void Canvas::fill_rect(double x0, double y0, double x1, double y1, Color color) {
  const auto clip = [](double v, int limit) {
    return static_cast<int>(std::clamp(std::round(v), 0.0, double(limit)));
  };
  const int right = clip(x1, width_), bottom = clip(y1, height_);
  for (int y = clip(y0, height_); y < bottom; ++y) {
    for (int x = clip(x0, width_); x < right; ++x) blend(x, y, color, 1);
  }
}

void Canvas::strokes(const std::vector<Polyline>& lines, double width, Color color,
                     double opacity) {
  const double reach = width / 2 + 1;
  Box all{width_, height_, 0, 0};
  const auto each_segment = [&](const auto& f) {
    for (const Polyline& line : lines) {
      for (size_t i = 0; i < line.size(); ++i) {
        const Point a = line[i], b = line[std::min(i + 1, line.size() - 1)];
        if (i + 1 == line.size() && i > 0) break;
        if (!std::isfinite(a.x + a.y + b.x + b.y)) continue;
        f(a, b, touched(a, b, reach, width_, height_));
      }
    }
  };
  each_segment([&](Point, Point, Box box) {
    all = {std::min(all.x0, box.x0), std::min(all.y0, box.y0), std::max(all.x1, box.x1),
           std::max(all.y1, box.y1)};
  });
  if (all.x0 >= all.x1 || all.y0 >= all.y1) return;

  // The largest coverage of any segment counts, so joints are not drawn twice.
  const auto columns = size_t(all.x1 - all.x0);
  std::vector<float> cover(columns * size_t(all.y1 - all.y0));
  each_segment([&](Point a, Point b, Box box) {
    for (int y = box.y0; y < box.y1; ++y) {
      for (int x = box.x0; x < box.x1; ++x) {
        const double d = distance_to_segment({x + 0.5, y + 0.5}, a, b);
        const auto c =
            static_cast<float>(std::clamp(width / 2 + 0.5 - d, 0.0, std::min(1.0, width)));
        float& old = cover[size_t(y - all.y0) * columns + size_t(x - all.x0)];
        old = std::max(old, c);
      }
    }
  });
  for (int y = all.y0; y < all.y1; ++y) {
    for (int x = all.x0; x < all.x1; ++x) {
      const float c = cover[size_t(y - all.y0) * columns + size_t(x - all.x0)];
      if (c > 0) blend(x, y, color, opacity * double(c));
    }
  }
}

double Canvas::text_width(const std::string& text, double size) {
  double width = 0;
  for (const char32_t code : decode_utf8(text)) width += detail::glyph(code).width + kLetterGap;
  return std::max(0.0, width - kLetterGap) * size / kFontUnits;
}

void Canvas::text(Point at, const std::string& text, double size, Color color, Anchor anchor,
                  bool upwards) {
  const double unit = size / kFontUnits;
  const double share = anchor == Anchor::left ? 0 : anchor == Anchor::middle ? 0.5 : 1;
  double begin = -share * text_width(text, size);
  std::vector<Polyline> lines;
  for (const char32_t code : decode_utf8(text)) {
    const detail::Glyph& glyph = detail::glyph(code);
    for (const Polyline& stroke : glyph.strokes) {
      Polyline line;
      for (const Point p : stroke) {
        const double along = begin + p.x * unit, down = (p.y - kCapMiddle) * unit;
        line.push_back(upwards ? Point{at.x + down, at.y - along}
                               : Point{at.x + along, at.y + down});
      }
      lines.push_back(std::move(line));
    }
    begin += (glyph.width + kLetterGap) * unit;
  }
  strokes(lines, std::max(1.15, size / 10.5), color);
}

std::string Canvas::png() const {
#ifdef CENTROID_HAVE_STB
  std::string bytes;
  const auto append = [](void* out, void* data, int size) {
    static_cast<std::string*>(out)->append(static_cast<const char*>(data), size_t(size));
  };
  const int ok =
      stbi_write_png_to_func(append, &bytes, width_, height_, 3, pixels_.data(), width_ * 3);
  CENTROID_CHECK(ok != 0, "picture: the PNG encoder failed on ", width_, " x ", height_, " pixels");
  return bytes;
#else
  throw Error("picture: this build cannot write PNG files (install libstb-dev and build again)");
#endif
}

void Canvas::save(const std::string& path) const {
  const std::string bytes = png();
  write_file_atomic(path, bytes.data(), bytes.size());
}

bool can_write_png() {
#ifdef CENTROID_HAVE_STB
  return true;
#else
  return false;
#endif
}

}  // namespace centroid::apps
