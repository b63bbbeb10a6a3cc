// LF-MMI: n-grams, graphs, the loss against CTC and against enumeration, decoding.
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "autograd/gradcheck.h"
#include "nn/lfmmi.h"
#include "nn/optim.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

using Labels = std::vector<int32_t>;
constexpr double kInf = INFINITY;

std::vector<Labels> random_sequences(int64_t count, int64_t symbols, Rng& rng) {
  std::vector<Labels> sequences(count);
  for (Labels& s : sequences) {
    int32_t label = 1;
    for (uint64_t n = rng.below(9); n > 0; --n) {  // what follows a label is far from uniform
      label = static_cast<int32_t>(1 + (label * (1 + rng.below(2)) + rng.below(2)) %
                                           static_cast<uint64_t>(symbols - 1));
      s.push_back(label);
    }
  }
  return sequences;
}

Ngram ngram(const std::vector<Labels>& sequences, int64_t symbols, int64_t order,
            bool smooth = true, int64_t states = 200) {
  return Ngram(sequences, symbols, {.order = order, .states = states, .smooth = smooth});
}
Ngram flat(int64_t symbols) { return ngram({}, symbols, 0); }

double log_prob(const Ngram& model, const Labels& labels) {
  int32_t state = model.start();
  double total = 0;
  for (int32_t label : labels) {
    total += model.log_prob(state, label);
    state = model.next(state, label);
  }
  return total + model.log_end(state);
}

// The sum of all paths' weights over all sequences of T classes with logits x, and over those alone
// that read as each sequence of labels: a state is carried by hand, without any Fsa.
struct Reader {
  const Ngram& model;
  Topology topology;
  double silence;
  const double* x;
  int64_t time, outputs;
  std::map<Labels, double> z = {};
  Labels said = {};

  // last: the label whose frames are being taken, 0 in class 0, -1 before the first frame.
  void walk(int64_t t, int32_t last, double weight) {
    const bool ctc = topology == Topology::ctc;
    const double enter = ctc ? 1 : silence, pass = ctc || last == 0 ? 1 : 1 - silence;
    if (t == time) {
      z[said] += weight * pass * std::exp(log_prob(model, said));
      return;
    }
    const double* row = x + t * outputs;
    walk(t + 1, 0, weight * std::exp(row[0]) * (last == 0 ? 1 : enter));
    const bool two = topology == Topology::two_state;
    if (last > 0) walk(t + 1, last, weight * std::exp(row[two ? 2 * last : last]));
    for (int32_t label = 1; label < model.symbols(); ++label) {
      if (ctc && label == last) continue;
      said.push_back(label);
      walk(t + 1, label, weight * pass * std::exp(row[two ? 2 * label - 1 : label]));
      said.pop_back();
    }
  }
  double total() const {
    double sum = 0;
    for (const auto& [labels, weight] : z) sum += weight;
    return sum;
  }
};

const LfmmiOptions kPlain{.leaky = 0, .reduction = Reduction::sum};

}  // namespace

TEST_CASE("n-gram probabilities of every history sum to 1", "[lfmmi]") {
  Rng rng(1);
  const int64_t symbols = 7;
  const auto sequences = random_sequences(60, symbols - 1, rng);  // label 6 is never seen
  for (int64_t order = 1; order <= 4; ++order) {
    for (bool smooth : {true, false}) {
      for (int64_t states : {0, 5, 1000}) {
        const Ngram model = ngram(sequences, symbols, order, smooth, states);
        INFO("order " << order << " smooth " << smooth << " states " << states);
        std::set<int32_t> reached{model.start()};
        for (int32_t state = 0; state < model.states(); ++state) {
          double sum = std::exp(model.log_end(state));
          for (int32_t label = 1; label < symbols; ++label) {
            const double p = model.log_prob(state, label);
            sum += std::exp(p);
            if (smooth) CHECK(p > -kInf);
            CHECK(model.next(state, label) >= 0);
            CHECK(model.next(state, label) < model.states());
            if (p > -kInf) reached.insert(model.next(state, label));
          }
          CHECK(sum == Approx(1));
        }
        if (order > 1) CHECK(static_cast<int64_t>(reached.size()) >= model.states() - 1);
        for (const Labels& s : sequences) CHECK(log_prob(model, s) > -kInf);
        if (!smooth) CHECK(log_prob(model, {6}) == -kInf);
        const Ngram again = Ngram::from(nlohmann::json::parse(nlohmann::json(model).dump()));
        for (const Labels& s : sequences) CHECK(log_prob(again, s) == log_prob(model, s));
      }
    }
  }
}

TEST_CASE("n-grams: counts and Witten-Bell by hand", "[lfmmi]") {
  // After a start: 1, 1, 2. After 1: 2, 2. After 2: 1, end, end... of 1 2, 1 2, 2 1 -> see below.
  const std::vector<Labels> sequences{{1, 2}, {1, 2}, {2, 1}};
  const Ngram ml = ngram(sequences, 3, 2, false);
  CHECK(ml.log_prob(ml.start(), 1) == Approx(std::log(2.0 / 3)));
  const int32_t one = ml.next(ml.start(), 1);
  CHECK(ml.log_prob(one, 2) == Approx(std::log(2.0 / 3)));
  CHECK(ml.log_end(one) == Approx(std::log(1.0 / 3)));
  const Ngram wb = ngram(sequences, 3, 2);
  // Nine symbols of three kinds: three 1, three 2, three ends; below it 1 / 3 each.
  const double unigram = (3 + 3 / 3.0) / 12;
  CHECK(wb.log_prob(wb.start(), 1) == Approx(std::log((2 + 2 * unigram) / 5)));
  CHECK(wb.log_end(wb.start()) == Approx(std::log(2 * unigram / 5)));
  CHECK_THAT(error_of([] { ngram({{3}}, 3, 2); }), Contains("label 3"));
  CHECK_THAT(error_of([] { ngram({}, 3, 2); }), Contains("at least one"));
  CHECK_THAT(error_of([] { ngram({{1}}, 3, 9); }), Contains("order"));
  auto json = nlohmann::json(wb);
  json["counts"][0][1] = 5;
  CHECK_THAT(error_of([&] { Ngram::from(json); }), Contains("expected [history, label, count]"));
}

TEST_CASE("numerators and denominators sum over exactly the sequences of classes that read so",
          "[lfmmi]") {
  Rng rng(2);
  const int64_t symbols = 3, time = 4;
  const auto sequences = random_sequences(20, symbols, rng);
  for (Topology topology : {Topology::ctc, Topology::one_state, Topology::two_state}) {
    for (int64_t order : {0, 1, 2, 3}) {
      for (double silence : {0.0, 0.3}) {
        const LfmmiGraph graph(ngram(sequences, symbols, order), topology, silence);
        const Tensor logits = randn({1, time, graph.outputs()}, rng);
        const std::vector<double> x = logits.to_vector<double>();
        Reader reader{graph.ngram(), topology, silence, x.data(), time, graph.outputs()};
        reader.walk(0, -1, 1);
        INFO(name_of(topology) << " order " << order << " silence " << silence);
        const auto log_z = [&](const Fsa& fsa) {
          return raw::forward_backward(logits, {}, pack({&fsa}, graph.outputs()), 0, false)
              .log_z.item<double>();
        };
        CHECK(log_z(graph.denominator().fsa) == Approx(std::log(reader.total())));
        for (const Labels& labels : std::vector<Labels>{{}, {1}, {2, 2}, {1, 2, 1}, {1, 1, 1}}) {
          const double expected = reader.z[labels];
          INFO("labels " << labels.size());
          CHECK(log_z(graph.numerator(transcript(labels)).fsa) == Approx(std::log(expected)));
          const int64_t frames = graph.min_frames(labels);
          const bool stuck = labels.empty() && silence == 0 && topology != Topology::ctc;
          CHECK((frames >= 0 && frames <= time && !stuck) == (expected > 0));
          if (expected == 0) {
            const std::string error =
                error_of([&] { lfmmi(logits, {}, std::vector<Labels>{labels}, graph, kPlain); });
            CHECK_THAT(error, Contains(stuck ? "without silence" : "at least"));
            continue;
          }
          const double loss = lfmmi(logits, {}, std::vector<Labels>{labels}, graph, kPlain).item();
          CHECK(loss == Approx(std::log(reader.total() / expected)));
        }
      }
    }
  }
}

TEST_CASE("with CTC's topology and no n-gram, LF-MMI is CTC", "[lfmmi]") {
  Rng rng(3);
  const LfmmiGraph graph(flat(5), Topology::ctc);
  Tensor a = randn({4, 12, 5}, rng, DType::f64, 2), b = raw::clone(a);
  a.set_requires_grad();
  b.set_requires_grad();
  const std::vector<Labels> labels{{1, 2, 2, 4}, {}, {3, 3, 3}, {4}};
  const Lengths lengths({12, 7, 9, 1});
  const Tensor mmi = lfmmi(a, lengths, labels, graph, {.leaky = 0});
  const Tensor ctc = nn::ctc(b, lengths, labels);
  CHECK(mmi.item() == Approx(ctc.item()).epsilon(1e-12));
  backward(mmi);
  backward(ctc);
  CHECK(mismatch(a.grad(), b.grad(), 1e-10, 1e-13) == "");
  // The numerator alone, of normalised logits, is -CTC; so is the term of ctc_weight.
  const FrameGraph numerator = graph.numerator(transcript(labels[0]));
  const Tensor first = raw::slice(b.detach(), 0, 0, 1);
  const auto sums =
      raw::forward_backward(raw::log_softmax(first), {}, pack({&numerator.fsa}, 5), 0, false);
  const double one = nn::ctc(first, {}, {labels[0]}, {.reduction = Reduction::sum}).item();
  CHECK(-sums.log_z.item<double>() == Approx(one));
  const Tensor both = lfmmi(a, lengths, labels, graph, {.leaky = 0, .ctc_weight = 0.5});
  CHECK(both.item() == Approx(1.5 * ctc.item()));
}

TEST_CASE("LF-MMI does not change with a constant in a frame, and is never negative", "[lfmmi]") {
  Rng rng(4);
  const auto sequences = random_sequences(30, 6, rng);
  for (double leaky : {0.0, 1e-5, 0.1}) {
    const LfmmiGraph graph(ngram(sequences, 6, 3), Topology::two_state, 0.2);
    const Tensor logits = randn({3, 15, graph.outputs()}, rng);
    const std::vector<Labels> labels{{1, 2, 3}, {5, 5}, {4}};
    const LfmmiOptions options{.leaky = leaky};
    const Tensor before = lfmmi(logits, {}, labels, graph, options);
    const Tensor shift = randn({3, 15, 1}, rng, DType::f64, 20);
    const Tensor after = lfmmi(raw::add(logits, shift), {}, labels, graph, options);
    CHECK(after.item() == Approx(before.item()).epsilon(1e-9));
    CHECK(before.item() > 0);
  }
}

TEST_CASE("LF-MMI passes the gradient check with every option", "[lfmmi][host]") {
  Rng rng(5);
  const auto sequences = random_sequences(30, 4, rng);
  const Lengths lengths({6, 4});
  const std::vector<Labels> labels{{1, 3, 3}, {2}};
  for (Topology topology : {Topology::ctc, Topology::one_state, Topology::two_state}) {
    const LfmmiGraph graph(ngram(sequences, 4, 2), topology);
    Tensor logits = randn({2, 6, graph.outputs()}, rng);
    logits.set_requires_grad();
    for (const LfmmiOptions& options :
         {LfmmiOptions{}, LfmmiOptions{.leaky = 0.1, .l2 = 0.3, .ctc_weight = 0.4}}) {
      const auto report = gradcheck(
          [&](const std::vector<Tensor>& in) {
            return std::vector<Tensor>{lfmmi(in[0], lengths, labels, graph, options)};
          },
          {logits});
      INFO(report.message);
      CHECK(report.ok);
    }
  }
}

TEST_CASE("pronunciations: the numerator sums over all of them", "[lfmmi]") {
  Rng rng(6);
  const auto sequences = random_sequences(30, 5, rng);
  const LfmmiGraph graph(ngram(sequences, 5, 3), Topology::one_state);
  const Tensor logits = randn({1, 7, 5}, rng);
  const Transcript words{{{{1, 2}, std::log(0.25)}, {{3}, std::log(0.75)}}, {{{4, 4}, 0}}};
  double sum = 0;
  for (const auto& [way, p] :
       std::vector<std::pair<Labels, double>>{{{1, 2, 4, 4}, 0.25}, {{3, 4, 4}, 0.75}}) {
    sum += p * std::exp(-lfmmi(logits, {}, std::vector<Labels>{way}, graph, kPlain).item());
  }
  const double loss = lfmmi(logits, {}, std::vector<Transcript>{words}, graph, kPlain).item();
  CHECK(loss == Approx(-std::log(sum)));
  const double mean = lfmmi(logits, {}, std::vector<Transcript>{words}, graph, {.leaky = 0}).item();
  CHECK(mean == Approx(loss / 4));
  CHECK_THAT(error_of([&] {
               lfmmi(logits, {}, std::vector<Transcript>{{{{{}, 0}}}}, graph);
             }),
             Contains("without labels"));
}

TEST_CASE("an infeasible item is an error that names it, or counts as 0 when asked", "[lfmmi]") {
  Rng rng(7);
  const LfmmiGraph graph(ngram({{1, 2}, {2, 1, 1}}, 4, 2, false), Topology::one_state);
  Tensor logits = randn({4, 5, 4}, rng);
  logits.set_requires_grad();
  // Item 1 is too short, item 2 has a label that was never seen.
  const std::vector<Labels> labels{{1, 2}, {2, 1, 1}, {3}, {2, 1, 1}};
  const Lengths lengths({5, 2, 5, 3});
  const auto loss = [&](const std::vector<Labels>& some, const Lengths& frames, bool zero) {
    return lfmmi(logits, frames, some, graph,
                 {.reduction = Reduction::sum, .zero_infeasible = zero});
  };
  CHECK_THAT(error_of([&] { loss(labels, lengths, false); }),
             Contains("item 1") && Contains("at least 3 frames, got 2"));
  CHECK_THAT(error_of([&] {
               loss(labels, Lengths({5, 3, 5, 3}), false);
             }),
             Contains("item 2") && Contains("no probability"));
  backward(loss(labels, lengths, true));
  const Tensor dx = logits.grad();
  CHECK_FALSE(raw::has_nonfinite(dx));
  for (int64_t b : {1, 2}) {
    CHECK(mismatch(raw::select(dx, 0, b), zeros({5, 4}, DType::f64), 0, 0) == "");
  }
  CHECK(raw::global_norm({raw::select(dx, 0, 3)}) > 0);
  CHECK(mismatch(raw::sum(dx, {2}), zeros({4, 5}, DType::f64), 0, 1e-12) == "");
}

TEST_CASE("empty transcripts and no frames", "[lfmmi]") {
  const LfmmiGraph graph(ngram({{}, {1}}, 3, 2), Topology::one_state, 0.25);
  const Tensor logits = zeros({2, 2, 3}, DType::f64);
  const Labels none;
  // Without frames there is the empty sequence only, in the denominator too.
  CHECK(lfmmi(logits, Lengths({0, 0}), std::vector<Labels>{none, none}, graph, kPlain).item() ==
        Approx(0).margin(1e-12));
  CHECK(lfmmi(logits, Lengths({2, 1}), std::vector<Labels>{none, {1}}, graph, kPlain).item() > 0);
  CHECK(graph.min_frames({}) == 0);
  CHECK(graph.decode(nullptr, 0).empty());
  CHECK(graph.recognise(nullptr, 0).labels.empty());
}

TEST_CASE("the best path is the best of all", "[lfmmi]") {
  Rng rng(8);
  const auto sequences = random_sequences(30, 4, rng);
  for (Topology topology : {Topology::ctc, Topology::one_state, Topology::two_state}) {
    const LfmmiGraph graph(ngram(sequences, 4, 2), topology, 0.2);
    const FrameGraph& d = graph.denominator();
    const int64_t time = 4, classes = graph.outputs();
    for (int trial = 0; trial < 5; ++trial) {
      const Tensor logits = randn({time, classes}, rng, DType::f32, 2);
      const std::vector<float> x = logits.to_vector<float>();
      double best = -kInf, total = 0;
      std::vector<LabelSpan> expected;
      std::vector<size_t> path;
      std::vector<double> mass(time * 4);  // of the paths with a label in a frame
      const auto walk = [&](const auto& self, double score) -> void {
        const int64_t t = static_cast<int64_t>(path.size());
        if (t == time) {
          score += d.fsa.final[d.fsa.arcs[path.back()].to];
          total += std::exp(score);
          for (int64_t i = 0; i < time; ++i) {
            const int32_t k = d.fsa.arcs[path[i]].label;
            mass[i * 4 + (topology == Topology::two_state ? (k + 1) / 2 : k)] += std::exp(score);
          }
          if (score <= best) return;
          best = score;
          expected.clear();
          for (int64_t i = 0; i < time; ++i) {
            if (d.begins[path[i]] > 0) {
              expected.push_back({d.begins[path[i]], i, i + 1});
            } else if (d.fsa.arcs[path[i]].label != 0) {
              expected.back().end = i + 1;
            }
          }
          return;
        }
        for (size_t i = 0; i < d.fsa.arcs.size(); ++i) {
          const FsaArc& arc = d.fsa.arcs[i];
          if (t > 0 && d.fsa.arcs[path.back()].to != arc.from) continue;
          const double first = t == 0 ? d.fsa.initial[arc.from] : 0;
          if (first == -kInf) continue;
          path.push_back(i);
          self(self, score + first + arc.weight + 0.7 * x[t * classes + arc.label]);
          path.pop_back();
        }
      };
      walk(walk, 0);
      const auto got = graph.decode(x.data(), time, 0.7);
      REQUIRE(got.size() == expected.size());
      for (size_t i = 0; i < got.size(); ++i) {
        CHECK(got[i].label == expected[i].label);
        CHECK(got[i].begin == expected[i].begin);
        CHECK(got[i].end == expected[i].end);
      }
      std::vector<float> scaled;
      for (const float value : x) scaled.push_back(0.7f * value);
      const Recognised sure = graph.recognise(scaled.data(), time);
      CHECK(sure.log_prob == Approx(best - std::log(total)).margin(1e-5));
      REQUIRE(sure.confidence.size() == expected.size());
      for (size_t i = 0; i < got.size(); ++i) {
        double sum = 0;
        for (int64_t t = got[i].begin; t < got[i].end; ++t) sum += mass[t * 4 + got[i].label];
        const auto frames = static_cast<double>(got[i].end - got[i].begin);
        CHECK(sure.confidence[i] == Approx(sum / total / frames).epsilon(1e-4));
      }
    }
  }
  const LfmmiGraph graph(flat(3), Topology::one_state);
  const std::vector<float> bad{0, NAN, 0};
  CHECK_THAT(error_of([&] { graph.decode(bad.data(), 1); }), Contains("class 1 at frame 0 is NaN"));
}

TEST_CASE("what no path can end with has no probability", "[lfmmi]") {
  // Without smoothing the only sequence has three labels: two frames are too few.
  const LfmmiGraph graph(Ngram({{1, 2, 3}}, 4, {.order = 2, .smooth = false}), Topology::one_state,
                         0);
  const std::vector<float> x(2 * graph.outputs(), 0.5f);
  const Recognised found = graph.recognise(x.data(), 2);
  CHECK(found.log_prob == -kInf);
  CHECK_FALSE(found.labels.empty());
  CHECK(found.confidence == std::vector<double>(found.labels.size(), 0));
}

TEST_CASE("logits trained by LF-MMI decode to their transcripts", "[lfmmi][host]") {
  Rng rng(9);
  const std::vector<Labels> labels{{1, 2, 3}, {3, 3}, {2, 1, 1, 2}};
  for (Topology topology : {Topology::ctc, Topology::one_state, Topology::two_state}) {
    const auto json = nlohmann::json(LfmmiGraph(ngram(labels, 4, 3), topology));
    const auto graph = LfmmiGraph::from(nlohmann::json::parse(json.dump()));
    Tensor logits = randn({3, 10, graph->outputs()}, rng, DType::f32, 0.1);
    logits.set_requires_grad();
    Optimizer optimizer({{"logits", logits}}, {.kind = "adam"});
    double last = 0;
    for (int step = 0; step < 60; ++step) {
      optimizer.zero_grad();
      const Tensor loss = lfmmi(logits, {}, labels, *graph, {.l2 = 1e-4});
      backward(loss);
      optimizer.step(0.3);
      last = loss.item();
    }
    CHECK(last < 0.2);
    for (size_t b = 0; b < labels.size(); ++b) {
      Labels found;
      const auto x = raw::select(logits.detach(), 0, static_cast<int64_t>(b)).to_vector<float>();
      for (const LabelSpan& span : graph->decode(x.data(), 10)) found.push_back(span.label);
      CHECK(found == labels[b]);
    }
  }
}

TEST_CASE("LF-MMI: bad arguments are named", "[lfmmi][host]") {
  CHECK_THAT(error_of([] { topology_from("hmm"); }), Contains("one-state") && Contains("hmm"));
  CHECK_THAT(error_of([] { LfmmiGraph(flat(3), Topology::one_state, 1); }), Contains("silence"));
  const LfmmiGraph graph(flat(3), Topology::two_state);
  const std::vector<Labels> one{{1}};
  CHECK_THAT(error_of([&] { lfmmi(zeros({1, 4, 3}), {}, one, graph); }), Contains("(B, T, 5)"));
  CHECK_THAT(error_of([&] {
               lfmmi(zeros({2, 4, 5}), {}, one, graph);
             }),
             Contains("1 transcripts for a batch of 2"));
  CHECK_THAT(error_of([&] {
               lfmmi(zeros({1, 4, 5}), {}, std::vector<Labels>{{3}}, graph);
             }),
             Contains("label 3"));
  CHECK_THAT(error_of([&] {
               lfmmi(zeros({1, 4, 5}), {}, one, graph, {.leaky = -1});
             }),
             Contains("leaky -1"));
}
