#include "tests/autograd/cases.h"

namespace centroid::test {

std::vector<Case> shape_cases() {
  using X = const Tensors&;
  return {
      {"transpose: matrix",
       [](X x) { return Tensors{transpose(x[0], 0, 1)}; },
       {param({3, 5})},
       {}},
      {"transpose: from the end",
       [](X x) { return Tensors{transpose(x[0], -1, 0)}; },
       {param({2, 3, 4})},
       {}},
      {"transpose: empty",
       [](X x) { return Tensors{transpose(x[0], 0, 1)}; },
       {param({0, 5})},
       zero_allowed()},
      {"permute",
       [](X x) {
         return Tensors{permute(x[0], {2, 0, 1})};
       },
       {param({2, 3, 4})},
       {}},
      {"permute: from the end",
       [](X x) {
         return Tensors{permute(x[0], {-1, 0, 2, -3})};
       },
       {param({2, 3, 1, 4})},
       {}},
      {"slice", [](X x) { return Tensors{slice(x[0], 1, 1, 4)}; }, {param({3, 5})}, {}},
      {"slice: step", [](X x) { return Tensors{slice(x[0], 0, 1, 7, 3)}; }, {param({7, 2})}, {}},
      {"slice: from the end",
       [](X x) { return Tensors{slice(x[0], -1, -3, -1)}; },
       {param({2, 5})},
       {}},
      {"slice: nothing",
       [](X x) { return Tensors{slice(x[0], 0, 2, 2)}; },
       {param({3})},
       zero_allowed()},
      {"select", [](X x) { return Tensors{select(x[0], 1, 2)}; }, {param({3, 5, 2})}, {}},
      {"select: from the end", [](X x) { return Tensors{select(x[0], 0, -1)}; }, {param({4})}, {}},
      {"expand",
       [](X x) {
         return Tensors{expand(x[0], {2, 3, 4})};
       },
       {param({3, 1})},
       {}},
      {"expand: scalar",
       [](X x) {
         return Tensors{expand(x[0], {2, 3})};
       },
       {param({})},
       {}},
      {"expand: to nothing",
       [](X x) {
         return Tensors{expand(x[0], {0, 3})};
       },
       {param({1, 3})},
       zero_allowed()},
      {"reshape",
       [](X x) {
         return Tensors{reshape(x[0], {-1, 4})};
       },
       {param({2, 3, 4})},
       {}},
      {"reshape: of a transposed view",
       [](X x) { return Tensors{reshape(transpose(x[0], 0, 1), {15})}; },
       {param({3, 5})},
       {}},
      {"reshape: empty",
       [](X x) {
         return Tensors{reshape(x[0], {3, 0})};
       },
       {param({0, 2})},
       zero_allowed()},
      {"unsqueeze", [](X x) { return Tensors{unsqueeze(x[0], 1)}; }, {param({3, 5})}, {}},
      {"unsqueeze: last", [](X x) { return Tensors{unsqueeze(x[0], -1)}; }, {param({3})}, {}},
      {"squeeze", [](X x) { return Tensors{squeeze(x[0], 1)}; }, {param({3, 1, 2})}, {}},
      {"contiguous",
       [](X x) { return Tensors{contiguous(transpose(x[0], 0, 1))}; },
       {param({3, 5})},
       {}},
      {"contiguous: already", [](X x) { return Tensors{contiguous(x[0])}; }, {param({3, 5})}, {}},
      {"clone", [](X x) { return Tensors{clone(x[0])}; }, {param({3, 5})}, {}},
      {"cat",
       [](X x) {
         return Tensors{cat({x[0], x[1], x[2]}, 1)};
       },
       {param({3, 2}), param({3, 1}), param({3, 4})},
       {}},
      {"cat: one tensor twice",
       [](X x) {
         return Tensors{cat({x[0], x[0]}, -1)};
       },
       {param({3, 2})},
       {}},
      {"cat: with an empty one",
       [](X x) {
         return Tensors{cat({x[0], x[1]}, 0)};
       },
       {param({0, 2}), param({3, 2})},
       zero_allowed()},
      {"stack",
       [](X x) {
         return Tensors{stack({x[0], x[1]}, 1)};
       },
       {param({3, 2}), param({3, 2}, -2, 2, 9)},
       {}},
      {"stack: last",
       [](X x) {
         return Tensors{stack({x[0], x[1]}, -1)};
       },
       {param({3}), param({3}, -2, 2, 9)},
       {}},
      {"split",
       [](X x) {
         return split(x[0], {1, 3, 1}, 1);
       },
       {param({3, 5})},
       {}},
      {"split: one part unused",
       [](X x) {
         const Tensors parts = split(x[0], {2, 3}, 0);
         return Tensors{parts[1]};
       },
       {param({5, 2})},
       {}},
      {"pad", [](X x) { return Tensors{pad(x[0], 1, 2, 1, 3.0)}; }, {param({3, 5})}, {}},
      {"pad: by nothing", [](X x) { return Tensors{pad(x[0], 0, 0, 0)}; }, {param({3})}, {}},
  };
}

std::vector<Case> reduce_cases() {
  using T = const Tensor&;
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, auto f, GradcheckOptions options) {
    const struct {
      Shape shape;
      Dims dims;
      bool keep;
    } kVariants[] = {{{3, 5}, {}, false},        {{3, 5}, {1}, false},       {{3, 5}, {0}, true},
                     {{2, 3, 4}, {0, 2}, false}, {{2, 3, 4}, {1, -1}, true}, {{7}, {-1}, false}};
    for (const auto& v : kVariants) {
      cases.push_back({concat(name, ": ", v.shape, " over ", v.dims, v.keep ? ", kept" : ""),
                       [=](const Tensors& x) { return Tensors{f(x[0], v.dims, v.keep)}; },
                       {param(v.shape)},
                       options});
    }
  };
  add("sum", [](T x, const Dims& d, bool k) { return sum(x, d, k); }, {});
  add("mean", [](T x, const Dims& d, bool k) { return mean(x, d, k); }, {});
  add(
      "max", [](T x, const Dims& d, bool k) { return max(x, d, k); }, gap(no_ties));
  add(
      "min", [](T x, const Dims& d, bool k) { return min(x, d, k); }, gap(no_ties));
  add("var", [](T x, const Dims& d, bool k) { return var(x, d, k); }, {});
  add("var: population", [](T x, const Dims& d, bool k) { return var(x, d, k, 0); }, {});
  add("logsumexp", [](T x, const Dims& d, bool k) { return logsumexp(x, d, k); }, {});

  using X = const Tensors&;
  cases.push_back({"sum: scalar", [](X x) { return Tensors{sum(x[0])}; }, {param({})}, {}});
  cases.push_back({"sum: over nothing",
                   [](X x) { return Tensors{sum(x[0], {0})}; },
                   {param({0, 3})},
                   zero_allowed()});
  cases.push_back(
      {"max: size 1", [](X x) { return Tensors{max(x[0], {1})}; }, {param({3, 1})}, {}});
  for (int dim : {0, 1, -1}) {
    cases.push_back({concat("cumsum: dim ", dim),
                     [=](X x) { return Tensors{cumsum(x[0], dim)}; },
                     {param({2, 3, 4})},
                     {}});
  }
  cases.push_back({"cumsum: empty",
                   [](X x) { return Tensors{cumsum(x[0], 0)}; },
                   {param({0, 2})},
                   zero_allowed()});
  return cases;
}

std::vector<Case> matmul_cases() {
  using X = const Tensors&;
  std::vector<Case> cases;
  const struct {
    const char* what;
    Shape a, b;
    bool empty = false;
  } kProducts[] = {{"matrices", {3, 5}, {5, 2}},
                   {"size 1", {1, 1}, {1, 1}},
                   {"row", {5}, {5, 2}},
                   {"column", {3, 5}, {5}},
                   {"dot", {5}, {5}},
                   {"batch", {2, 3, 5}, {2, 5, 4}},
                   {"batch of a, b 2-D", {2, 3, 5}, {5, 4}},
                   {"batch of b, a 2-D", {3, 5}, {2, 5, 4}},
                   {"batch of a, b 1-D", {2, 3, 5}, {5}},
                   {"batch of b, a 1-D", {5}, {2, 5, 4}},
                   {"broadcast batches", {2, 1, 3, 2}, {4, 2, 3}},
                   {"inner size 0", {3, 0}, {0, 2}, true},
                   {"no rows", {0, 3}, {3, 2}, true}};
  for (const auto& p : kProducts) {
    cases.push_back({concat("matmul: ", p.what),
                     [](X x) { return Tensors{matmul(x[0], x[1])}; },
                     {param(p.a, -2, 2, 1), param(p.b, -2, 2, 2)},
                     p.empty ? zero_allowed() : GradcheckOptions()});
  }
  cases.push_back(
      {"matmul: transposed views",
       [](X x) { return Tensors{matmul(transpose(x[0], 0, 1), transpose(x[1], 0, 1))}; },
       {param({5, 3}), param({2, 5})},
       {}});
  cases.push_back({"matmul: a with itself",
                   [](X x) { return Tensors{matmul(x[0], transpose(x[0], 0, 1))}; },
                   {param({3, 5})},
                   {}});

  for (const Shape& shape : {Shape{3, 5}, Shape{2, 3, 5}, Shape{5}, Shape{1, 1, 5}}) {
    cases.push_back({concat("linear: ", shape),
                     [](X x) { return Tensors{linear(x[0], x[1], x[2])}; },
                     {param(shape), param({4, 5}), param({4})},
                     {}});
  }
  cases.push_back({"linear: no bias",
                   [](X x) { return Tensors{linear(x[0], x[1])}; },
                   {param({3, 5}), param({4, 5})},
                   {}});
  cases.push_back({"linear: no rows",
                   [](X x) { return Tensors{linear(x[0], x[1], x[2])}; },
                   {param({0, 5}), param({4, 5}), param({4})},
                   zero_allowed()});
  for (const Unary function : {Unary::relu, Unary::gelu, Unary::tanh, Unary::silu}) {
    const raw::Activation act{true, function};
    GradcheckOptions options = gap([](X x) {
      return away_from({0})({raw::linear(x[0], x[1], x.size() > 2 ? x[2] : Tensor())});
    });
    cases.push_back({concat("linear: activation ", static_cast<int>(function)),
                     [=](X x) { return Tensors{centroid::linear(x[0], x[1], x[2], act)}; },
                     {param({2, 3, 5}), param({4, 5}), param({4})},
                     options});
    cases.push_back({concat("linear: no bias, activation ", static_cast<int>(function)),
                     [=](X x) { return Tensors{centroid::linear(x[0], x[1], {}, act)}; },
                     {param({3, 5}), param({4, 5})},
                     options});
  }

  const auto options = [](int64_t stride, int64_t padding, int64_t dilation, int64_t groups = 1) {
    return raw::ConvOptions{stride, padding, dilation, groups};
  };
  for (const auto& o : {options(1, 0, 1), options(2, 1, 1), options(1, 2, 2), options(3, 0, 1)}) {
    const std::string what =
        concat("stride ", o.stride, " padding ", o.padding, " dilation ", o.dilation);
    cases.push_back({"conv1d: " + what,
                     [=](X x) { return Tensors{centroid::conv1d(x[0], x[1], x[2], o)}; },
                     {param({2, 3, 7}), param({4, 3, 3}), param({4})},
                     {}});
    raw::ConvOptions depthwise = o;
    depthwise.groups = 3;
    cases.push_back({"conv1d: depthwise, " + what,
                     [=](X x) { return Tensors{centroid::conv1d(x[0], x[1], x[2], depthwise)}; },
                     {param({2, 3, 7}), param({3, 1, 3}), param({3})},
                     {}});
    cases.push_back({"conv2d: " + what,
                     [=](X x) { return Tensors{centroid::conv2d(x[0], x[1], x[2], o)}; },
                     {param({2, 2, 5, 7}), param({3, 2, 3, 3}), param({3})},
                     {}});
  }
  cases.push_back({"conv1d: no bias",
                   [](X x) { return Tensors{conv1d(x[0], x[1])}; },
                   {param({1, 1, 3}), param({1, 1, 1})},
                   {}});
  cases.push_back({"conv2d: no bias, odd kernel",
                   [](X x) { return Tensors{conv2d(x[0], x[1])}; },
                   {param({1, 2, 4, 3}), param({2, 2, 1, 3})},
                   {}});
  return cases;
}

std::vector<Case> nn_cases() {
  using X = const Tensors&;
  std::vector<Case> cases;
  for (const Shape& shape : {Shape{3, 5}, Shape{5}, Shape{2, 3, 4}}) {
    cases.push_back({concat("softmax: ", shape),
                     [](X x) { return Tensors{softmax(x[0])}; },
                     {param(shape)},
                     {}});
    cases.push_back({concat("log_softmax: ", shape),
                     [](X x) { return Tensors{log_softmax(x[0])}; },
                     {param(shape)},
                     {}});
  }
  cases.push_back({"softmax: size 1 (constant)",
                   [](X x) { return Tensors{softmax(x[0])}; },
                   {param({3, 1})},
                   zero_allowed()});
  cases.push_back({"softmax: empty",
                   [](X x) { return Tensors{softmax(x[0])}; },
                   {param({0, 3})},
                   zero_allowed()});

  const Lengths full, q({3, 2}), k({5, 3}), none({4, 0});
  const struct {
    const char* what;
    Lengths q, k;
    bool causal;
  } kMasks[] = {{"full", full, full, false},
                {"keys", full, k, false},
                {"both", q, k, false},
                {"causal", full, full, true},
                {"causal and lengths", q, k, true},
                {"an item without keys", full, none, false}};
  for (const auto& m : kMasks) {
    cases.push_back({concat("masked_softmax: ", m.what),
                     [=](X x) { return Tensors{masked_softmax(x[0], 0.7, m.q, m.k, m.causal)}; },
                     {param({2, 2, 3, 5})},
                     {}});
  }

  for (const Shape& shape : {Shape{3, 5}, Shape{2, 3, 4}, Shape{7}}) {
    const int64_t n = shape[-1];
    cases.push_back({concat("layer_norm: ", shape),
                     [](X x) { return Tensors{layer_norm(x[0], x[1], x[2])}; },
                     {param(shape), param({n}), param({n}, -2, 2, 8)},
                     {}});
  }
  for (const double p : {0.0, 0.25, 0.5}) {
    cases.push_back({concat("dropout: p ", p),
                     [=](X x) {
                       Rng rng(11, "dropout");
                       return Tensors{dropout(x[0], p, rng)};
                     },
                     {param({5, 9})},
                     {}});
  }
  cases.push_back({"rotary",
                   [](X x) { return Tensors{rotary(x[0], x[1])}; },
                   {param({2, 3, 2, 4}), param({3, 2})},
                   {}});
  return cases;
}

std::vector<Case> index_cases() {
  using X = const Tensors&;
  Rng rng(5, "indices");
  const Tensor matrix = randint({3, 4}, 5, rng), wide = randint({7, 2}, 3, rng);
  const Tensor twice = from_vector<int64_t>({1, 4, 1}, {3});
  const Tensor narrow = from_vector<int32_t>({0, 2, 2, 1}, {2, 2});
  const Tensor nothing = from_vector<int64_t>({}, {0});
  return {
      {"gather: last",
       [](X x) { return Tensors{gather(x[0], -1, x[1])}; },
       {param({3, 5}), matrix},
       {}},
      {"gather: first",
       [](X x) { return Tensors{gather(x[0], 0, x[1])}; },
       {param({3, 2}), wide},
       {}},
      {"scatter_add: last",
       [](X x) { return Tensors{scatter_add(x[0], 1, x[1], x[2])}; },
       {param({3, 5}), matrix, param({3, 4})},
       {}},
      {"scatter_add: first",
       [](X x) { return Tensors{scatter_add(x[0], 0, x[1], x[2])}; },
       {param({3, 2}), wide, param({7, 2})},
       {}},
      {"index_select: an index twice",
       [](X x) { return Tensors{index_select(x[0], 1, x[1])}; },
       {param({2, 5, 3}), twice},
       {}},
      {"index_select: nothing",
       [](X x) { return Tensors{index_select(x[0], 0, x[1])}; },
       {param({2, 3}), nothing},
       zero_allowed()},
      {"embedding: i32",
       [](X x) { return Tensors{embedding(x[0], x[1])}; },
       {param({4, 3}), narrow},
       {}},
      {"embedding: i64",
       [](X x) { return Tensors{embedding(x[0], x[1])}; },
       {param({5, 2}), twice},
       {}},
      {"embedding: nothing",
       [](X x) { return Tensors{embedding(x[0], x[1])}; },
       {param({5, 2}), nothing},
       zero_allowed()},
      {"topk", [](X x) { return Tensors{topk(x[0], 2).first}; }, {param({3, 5})}, gap(no_ties)},
      {"topk: all", [](X x) { return Tensors{topk(x[0], 5).first}; }, {param({5})}, gap(no_ties)},
      {"sort", [](X x) { return Tensors{sort(x[0]).first}; }, {param({3, 5})}, gap(no_ties)},
      {"sort: descending",
       [](X x) { return Tensors{sort(x[0], true).first}; },
       {param({2, 2, 3})},
       gap(no_ties)},
  };
}

std::vector<Case> loss_cases() {
  using X = const Tensors&;
  const Tensor classes = from_vector<int64_t>({0, 4, -100, 2, 1, 3}, {2, 3});
  // Item 0 repeats a label, item 1 is shorter than the batch, item 2 has an empty target.
  const Tensor labels = from_vector<int32_t>({1, 1, 2, 3, 2, 1, 1, 1, 1}, {3, 3});
  const Lengths frames({7, 5, 4}), symbols({3, 2, 0});
  static const Fsa loop{{{0, 0, 0, 0.1}, {0, 1, 3, 0}, {1, 0, 2, -0.4}, {1, 1, 1, 0.3}},
                        {0, -1},
                        {0.2, 0.7},
                        {-0.5, -1}};
  static const Fsa ring{{{0, 1, 0, 0}, {1, 2, 3, 0}, {2, 0, 1, 0}, {2, 2, 1, 1}, {0, 1, 2, 0}},
                        {0, -INFINITY, 1},
                        {0, 0, -INFINITY},
                        {}};
  const std::vector<const Fsa*> three{&loop, &ring, &loop};
  return {
      {"cross_entropy",
       [](X x) { return Tensors{cross_entropy(x[0], x[1])}; },
       {param({2, 3, 5}), classes},
       {}},
      {"cross_entropy: smoothed",
       [](X x) { return Tensors{cross_entropy(x[0], x[1], -100, 0.1)}; },
       {param({2, 3, 5}), classes},
       {}},
      {"cross_entropy: another class ignored",
       [](X x) { return Tensors{cross_entropy(x[0], x[1], 3)}; },
       {param({4, 5}), from_vector<int64_t>({3, 0, 4, 3}, {4})},
       {}},
      {"cross_entropy: everything ignored",
       [](X x) { return Tensors{cross_entropy(x[0], x[1])}; },
       {param({1, 5}), from_vector<int64_t>({-100}, {1})},
       zero_allowed()},
      {"ctc",
       [=](X x) { return Tensors{ctc(x[0], x[1], frames, symbols)}; },
       {param({3, 7, 4}), labels},
       {}},
      {"ctc: last class blank",
       [=](X x) {
         return Tensors{ctc(x[0], x[1], Lengths({6, 7}), Lengths({2, 3}), 3)};
       },
       {param({2, 7, 4}), from_vector<int32_t>({0, 2, 0, 1, 1, 2}, {2, 3})},
       {}},
      {"log_partition: one acceptor for each item",
       [=](X x) {
         return Tensors{cast(log_partition(x[0], frames, pack(three, 4)), x[0].dtype())};
       },
       {param({3, 7, 4})},
       {}},
      {"log_partition: shared and leaky",
       [=](X x) { return Tensors{log_partition(x[0], frames, pack({three[0]}, 4), 0.1)}; },
       {param({3, 7, 4})},
       {}},
  };
}

}  // namespace centroid::test
