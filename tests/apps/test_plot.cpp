// Pictures: that what is drawn is where it belongs. How they look is for the eye.
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "apps/common/axis.h"
#include "apps/common/canvas.h"
#include "apps/common/plot.h"
#include "tests/support.h"

using namespace centroid::apps;
using Catch::Matchers::Contains;
using centroid::test::error_of;
using centroid::test::read_text;
using centroid::test::TempDir;

namespace {

int64_t count_not(const Canvas& canvas, Color color, int x0, int y0, int x1, int y1) {
  int64_t count = 0;
  for (int y = y0; y < y1; ++y) {
    for (int x = x0; x < x1; ++x) count += canvas.at(x, y) != color;
  }
  return count;
}

int64_t count_of(const Canvas& canvas, Color color) {
  return int64_t{canvas.width()} * canvas.height() -
         count_not(canvas, color, 0, 0, canvas.width(), canvas.height());
}

PlotSpec one_series(std::vector<double> x, std::vector<double> y) {
  return {"title", {"x", false, {}, {}}, {{{"y", false, {}, {}}, {{"a", x, y, false, -1}}}}};
}

}  // namespace

TEST_CASE("a line covers its pixels, is soft at its edge and stays inside the picture") {
  Canvas canvas(20, 10);
  canvas.line({2, 5}, {18, 5}, 2, kBlack);
  CHECK(canvas.at(10, 4) == kBlack);
  CHECK(canvas.at(10, 5) == kBlack);
  CHECK(canvas.at(10, 2) == kWhite);
  CHECK(canvas.at(10, 7) == kWhite);
  canvas.line({-1e6, -1e6}, {1e6, 1e6}, 3, kBlack);
  canvas.line({NAN, 0}, {5, 5}, 3, kBlack);
  canvas.fill_rect(-100, 8, 100, 100, kGrey);
  CHECK(canvas.at(0, 9) == kGrey);
  CHECK(canvas.at(19, 9) == kGrey);
  CHECK_THAT(error_of([&] { canvas.at(20, 0); }), Contains("inside 20 x 10, got (20, 0)"));
  CHECK_THAT(error_of([] { Canvas(0, 5); }), Contains("got 0 x 5"));
}

TEST_CASE("lines that cross do not add up") {
  Canvas canvas(20, 20);
  canvas.strokes({{{0, 10.5}, {20, 10.5}}, {{10.5, 0}, {10.5, 20}}}, 0.5, kBlack);
  CHECK(canvas.at(3, 10) == Color{128, 128, 128});
  CHECK(canvas.at(10, 10) == canvas.at(3, 10));
}

TEST_CASE("text is as wide as text_width says, in every direction and for every byte") {
  const std::string text =
      "Hq8 \xd0\xb6 \xff";  // with a Russian letter and a byte that is no UTF-8
  const double width = Canvas::text_width(text, 20);
  for (const Anchor anchor : {Anchor::left, Anchor::middle, Anchor::right}) {
    for (const bool upwards : {false, true}) {
      Canvas canvas(400, 400);
      canvas.text({200, 200}, text, 20, kBlack, anchor, upwards);
      const double begin = anchor == Anchor::left     ? 0
                           : anchor == Anchor::middle ? -width / 2
                                                      : -width;
      const int low = static_cast<int>(200 + begin) - 3,
                high = static_cast<int>(200 + begin + width) + 3;
      const int64_t inside = upwards ? count_not(canvas, kWhite, 185, 400 - high, 216, 400 - low)
                                     : count_not(canvas, kWhite, low, 185, high, 216);
      CHECK(inside > 100);
      CHECK(inside == count_not(canvas, kWhite, 0, 0, 400, 400));
    }
  }
  CHECK(Canvas::text_width("", 20) == 0);
}

TEST_CASE("all printable characters have a glyph of their own") {
  const auto shape = [](char32_t code) {
    std::string text;
    for (const Polyline& line : detail::glyph(code).strokes) {
      for (const Point p : line) text += std::to_string(p.x) + "," + std::to_string(p.y) + " ";
      text += "|";
    }
    return text;
  };
  std::set<std::string> shapes = {shape(0x65e5)};  // an unknown one
  for (char32_t code = 32; code < 127; ++code) {
    CHECK(shapes.insert(shape(code)).second);
    CHECK((code == 32 || !detail::glyph(code).strokes.empty()));
  }
}

TEST_CASE("ticks are round numbers inside the range") {
  CHECK(nice_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(nice_ticks(0.13, 0.37, 3) == std::vector<double>{0.2, 0.30000000000000004});
  CHECK(nice_ticks(1, 1, 5).empty());
  CHECK(log_ticks(0.5, 2000, 4) == std::vector<double>{1, 10, 100, 1000});
  CHECK(log_ticks(1, 100, 9) == std::vector<double>{1, 2, 5, 10, 20, 50, 100});
  CHECK(log_ticks(1, 1e12, 5).size() <= 6);
  for (const double tick : nice_ticks(-3.3, 7.1, 6)) CHECK((tick >= -3.3 && tick <= 7.1));
}

TEST_CASE("tick texts are short and tell neighbours apart") {
  CHECK(tick_text(0, 0.5) == "0");
  CHECK(tick_text(1, 0.5) == "1.0");
  CHECK(tick_text(2000, 500) == "2000");
  CHECK(tick_text(250000, 50000) == "250k");
  CHECK(tick_text(1500000, 500000) == "1.5M");
  CHECK(tick_text(3e-4, 1e-4) == "3e-4");
  CHECK(tick_text(2.5e-4, 5e-5) == "2.5e-4");
  CHECK(tick_text(-1.5, 0.5) == "-1.5");
}

TEST_CASE("a curve is drawn between its axes, and not-a-number interrupts it") {
  const Canvas whole = line_plot(one_series({0, 1, 2, 3}, {1, 1, 1, 1}));
  const Canvas broken = line_plot(one_series({0, 1, 2, 3}, {1, NAN, NAN, 1}));
  const Color blue{31, 100, 180};
  CHECK(count_of(whole, blue) > 1500);
  CHECK(count_of(broken, blue) > 20);  // the two points and the legend remain
  CHECK(count_of(broken, blue) < count_of(whole, blue) / 4);
}

TEST_CASE("plots of nothing, of one point, of infinities and on log axes are drawn") {
  CHECK(line_plot(one_series({}, {})).width() == 960);
  CHECK(line_plot(one_series({5}, {5})).width() == 960);
  CHECK(line_plot(one_series({1, 2}, {INFINITY, -INFINITY})).width() == 960);
  PlotSpec spec = one_series({1, 10, 100, -5}, {0, 1e-8, 1e8, 3});
  spec.x.log = spec.panels[0].y.log = true;
  spec.panels.push_back(spec.panels[0]);
  CHECK(line_plot(spec).height() > 520);
}

TEST_CASE("plots check what they are given") {
  CHECK_THAT(error_of([] { line_plot(PlotSpec{}); }), Contains("at least one panel"));
  CHECK_THAT(error_of([] {
               line_plot(one_series({1, 2}, {1}));
             }),
             Contains("series 'a': expected as many x as y, got 2 and 1"));
  HeatmapSpec spec;
  spec.title = "t";
  CHECK_THAT(error_of([&] { heatmap(spec); }), Contains("at least one row"));
  spec.rows = 2, spec.columns = 3, spec.values = {1, 2};
  CHECK_THAT(error_of([&] { heatmap(spec); }), Contains("expected 2 x 3 values, got 2"));
  spec.values = {1, 2, 3, 4, 5, 6}, spec.row_tokens = {"a"};
  CHECK_THAT(error_of([&] { heatmap(spec); }), Contains("expected 2 row tokens, got 1"));
  CHECK_THAT(error_of([] { heatmap_grid("", {}, 1); }), Contains("at least one matrix"));
}

TEST_CASE("a heat map shows its values, grey where there is none") {
  HeatmapSpec spec;
  spec.rows = 2, spec.columns = 2, spec.values = {0, 1, NAN, 1};
  const Canvas canvas = heatmap(spec);
  const int64_t cell = 310 * 310;
  CHECK(count_of(canvas, map_color(0)) >= cell);
  CHECK(count_of(canvas, kGrey) >= cell);
  CHECK(count_of(canvas, map_color(1)) >= 2 * cell);
  // Row 0 is at the top; or at the bottom, upwards.
  const auto top_left_corner = [](const Canvas& c) {
    for (int i = 0; i < 200; ++i) {
      const Color color = c.at(60 + i, 40 + i);
      if (color == map_color(0) || color == kGrey) return color;
    }
    return kBlack;
  };
  CHECK(top_left_corner(canvas) == map_color(0));
  spec.upwards = true;
  CHECK(top_left_corner(heatmap(spec)) == kGrey);
}

TEST_CASE("a matrix finer than the picture is averaged, not sampled") {
  HeatmapSpec spec;
  spec.rows = 1, spec.columns = 6200;
  for (int i = 0; i < 6200; ++i) spec.values.push_back(i % 2 ? 1.0f : 0.0f);
  spec.width = 620, spec.height = 50;
  CHECK(count_of(heatmap(spec), map_color(0.5)) >= 620 * 50);
}

TEST_CASE("colours run from dark to light and do not leave the map") {
  CHECK(map_color(-1) == map_color(0));
  CHECK(map_color(2) == map_color(1));
  CHECK(map_color(NAN) == map_color(0));
  int before = 0;
  for (int i = 0; i <= 10; ++i) {
    const Color c = map_color(i / 10.0);
    const int light = 3 * c.r + 6 * c.g + c.b;
    CHECK(light > before);
    before = light;
  }
}

TEST_CASE("pictures are PNG files") {
  TempDir folder;
  if (!can_write_png()) {
    CHECK_THAT(error_of([] { Canvas(3, 3).png(); }), Contains("cannot write PNG files"));
    return;
  }
  Canvas(3, 2).save(folder / "a.png");
  const std::string bytes = read_text(folder / "a.png");
  CHECK(bytes.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  CHECK(bytes.substr(16, 8) == std::string("\0\0\0\3\0\0\0\2", 8));
  CHECK_THAT(error_of([&] { Canvas(3, 2).save((folder / "none") + "/a.png"); }),
             Contains("none/a.png"));
}

TEST_CASE("bars stand on their values, one part on top of the other", "[plot]") {
  const Color first{31, 100, 180}, second{222, 98, 16};
  BarSpec spec;
  spec.parts = {{"", {2, 0, 1}}, {"", {2, 4}}};
  const Canvas canvas = bar_plot(spec);
  const int64_t one = count_of(canvas, first), other = count_of(canvas, second);
  CHECK(one > 20000);
  CHECK(other == Approx(2.0 * static_cast<double>(one)).epsilon(0.01));  // 3 units and 6
  spec.parts[0].label = "a";
  CHECK(count_of(bar_plot(spec), first) == one + 144);  // the legend's square
  spec.parts = {{"", {0, 0}}};
  CHECK(count_of(bar_plot(spec), first) == 0);
  CHECK_THAT(error_of([] { bar_plot(BarSpec{}); }), Contains("at least one bar"));
  for (const double bad : {-1.0, double{NAN}, double{INFINITY}}) {
    spec.parts = {{"p", {1, bad}}};
    CHECK_THAT(error_of([&] { bar_plot(spec); }), Contains("'p': expected values >= 0"));
  }
  spec.parts = {{"", {1}}};
  spec.step = 0;
  CHECK_THAT(error_of([&] { bar_plot(spec); }), Contains("step above 0"));
}
