#include "nn/attention.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "autograd/ops.h"
#include "nn/names.h"

namespace centroid::nn {

// ---- inputs and outputs -------------------------------------------------------------------------

namespace {

void check_like(const Tensor& x, const char* x_name, const Tensor& q, const char* name) {
  CENTROID_CHECK(x.dtype() == q.dtype(), name, ": dtypes differ: q is ", q.dtype(), ", ", x_name,
                 " is ", x.dtype());
  CENTROID_CHECK(x.device() == q.device(), name, ": devices differ: q is on ", q.device(), ", ",
                 x_name, " is on ", x.device());
}

}  // namespace

void check_attention_input(const AttentionInput& input, const Capabilities& can, const char* name) {
  const Tensor &q = input.q, &k = input.k, &v = input.v;
  CENTROID_CHECK(q.defined() && k.defined() && v.defined(), name, ": q, k and v must be given");
  const std::string shapes = concat("q is ", q.shape(), ", k is ", k.shape(), ", v is ", v.shape());
  CENTROID_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, name,
                 ": expected q (B, H, L, E), k (B, H, S, E), v (B, H, S, D), got ", shapes);
  CENTROID_CHECK(q.numel() > 0 && k.numel() > 0 && v.numel() > 0, name,
                 ": empty input: every size must be at least 1, got ", shapes);
  CENTROID_CHECK(k.size(0) == q.size(0) && v.size(0) == q.size(0) && k.size(1) == q.size(1) &&
                     v.size(1) == q.size(1),
                 name, ": batch or heads differ: ", shapes);
  CENTROID_CHECK(k.size(3) == q.size(3), name, ": head sizes of q and k differ: ", shapes);
  CENTROID_CHECK(v.size(2) == k.size(2), name, ": k and v differ in length: ", shapes);
  CENTROID_CHECK(q.dtype() == DType::f32 || q.dtype() == DType::f64, name,
                 ": dtype: expected f32 or f64, got ", q.dtype());
  check_like(k, "k", q, name);
  check_like(v, "v", q, name);
  input.q_lengths.check(q.size(0), q.size(2), concat(name, ": q_lengths").c_str());
  input.k_lengths.check(q.size(0), k.size(2), concat(name, ": k_lengths").c_str());
  CENTROID_CHECK(!input.causal || can.causal, name, ": this variant cannot be causal");
  CENTROID_CHECK(input.causal || !can.causal_only, name, ": this variant must be causal ",
                 "(expected one that may look ahead, such as full or improved-clustered)");
  CENTROID_CHECK(q.size(2) == k.size(2) || can.cross, name,
                 ": this variant needs as many queries as keys (no cross-attention): ", shapes);
  CENTROID_CHECK(!input.training || input.rng, name,
                 ": training needs a random stream: set AttentionInput::rng");
}

Tensor heads_last(const Tensor& x) {
  return permute(contiguous(permute(x, {0, 2, 1, 3})), {0, 2, 1, 3});
}

// Attention is linear in the values: with the unit matrix as values, output row l is the row l of
// weights.
Tensor attention_weights(Attention& attention, AttentionInput input) {
  CENTROID_CHECK(input.k.defined() && input.k.dim() == 4,
                 "attention_weights: expected k (B, H, S, E)");
  const Tensor& k = input.k;
  const int64_t keys = k.size(2);
  const Tensor unit = raw::one_hot(arange(keys, DType::i64, k.device()), keys, k.dtype());
  input.v = raw::expand(unit, {k.size(0), k.size(1), keys, keys});
  return attention.attend(input);
}

// ---- option values ------------------------------------------------------------------------------

namespace {

template <typename T>
T parse_value(const std::string& variant, const std::string& option, const std::string& text, T low,
              T high, const char* kind) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, problem] = std::from_chars(text.data(), end, value);
  CENTROID_CHECK(problem == std::errc() && stop == end && value >= low && value <= high,
                 "attention ", variant, ": option ", option, ": expected ", kind, " in [", low,
                 ", ", high, "], got '", text, "'");
  return value;
}

}  // namespace

const std::string& AttentionOptions::text(const std::string& name) const {
  const auto found = values_.find(name);
  CENTROID_CHECK(found != values_.end(), "attention ", variant_, ": option ", name,
                 " is read by the variant but not registered");
  return found->second;
}

int64_t AttentionOptions::integer(const std::string& name, int64_t low, int64_t high) const {
  return parse_value<int64_t>(variant_, name, text(name), low, high, "a whole number");
}

double AttentionOptions::number(const std::string& name, double low, double high) const {
  return parse_value<double>(variant_, name, text(name), low, high, "a number");
}

bool AttentionOptions::flag(const std::string& name) const {
  const std::string& value = text(name);
  if (value == "true" || value == "1") return true;
  CENTROID_CHECK(value == "false" || value == "0", "attention ", variant_, ": option ", name,
                 ": expected true or false, got '", value, "'");
  return false;
}

// ---- the registry -------------------------------------------------------------------------------

namespace {

struct Variant {
  std::string help;
  std::vector<OptionSpec> options;
  AttentionFactory factory;
};

struct Registry {
  std::map<std::string, Variant> variants;
  std::string twice;  // a name registered twice: reported on use, as registration runs before main
};

// A function's static, so that it exists whenever a registering object of another file is built.
Registry& registry() {
  static Registry instance;
  return instance;
}

const std::map<std::string, Variant>& variants() {
  CENTROID_CHECK(registry().twice.empty(), "attention: two variants are registered as '",
                 registry().twice, "'");
  return registry().variants;
}

constexpr const char* kInner = "inner";

struct ParsedSpec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;
  std::string inner;
};

// name [ ":" option "=" value { "," option "=" value } ] [ "(" inner ")" ]
ParsedSpec parse_spec(const std::string& spec) {
  const auto fail = [&](const std::string& problem) {
    throw Error(concat("attention '", spec, "': ", problem,
                       " (expected name, name:option=value,option=value or name:...(inner))"));
  };
  ParsedSpec parsed;
  const size_t open = spec.find('(');
  if (open != std::string::npos) {
    if (spec.back() != ')') fail("the parenthesis is not closed at the end");
    parsed.inner = spec.substr(open + 1, spec.size() - open - 2);
    if (parsed.inner.empty()) fail("nothing between the parentheses");
  }
  const std::string head = spec.substr(0, open);
  if (head.find(')') != std::string::npos) fail("a parenthesis is closed that was not opened");
  const size_t colon = head.find(':');
  parsed.name = head.substr(0, colon);
  if (parsed.name.empty()) fail("the name is missing");
  for (size_t begin = colon; begin != std::string::npos;) {
    const size_t comma = head.find(',', ++begin);
    const std::string item = head.substr(begin, comma - begin);
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == item.size()) {
      fail("expected option=value, got '" + item + "'");
    }
    parsed.values.emplace_back(item.substr(0, equals), item.substr(equals + 1));
    begin = comma;
  }
  return parsed;
}

}  // namespace

RegisterAttention::RegisterAttention(std::string name, std::string help,
                                     std::vector<OptionSpec> options, AttentionFactory factory) {
  Variant variant{std::move(help), std::move(options), std::move(factory)};
  if (!registry().variants.emplace(name, std::move(variant)).second) registry().twice = name;
}

std::unique_ptr<Attention> make_attention(const std::string& spec) {
  const ParsedSpec parsed = parse_spec(spec);
  const auto found = variants().find(parsed.name);
  CENTROID_CHECK(found != variants().end(), "attention '", spec, "': unknown variant '",
                 parsed.name, "': expected one of ", nearest_first(attention_names(), parsed.name));
  const Variant& variant = found->second;
  std::map<std::string, std::string> values;
  std::string inner;
  bool decorates = false;
  std::vector<std::string> names;
  for (const OptionSpec& option : variant.options) {
    if (option.name == kInner) {
      decorates = true;
      inner = parsed.inner.empty() ? option.default_value : parsed.inner;
    } else {
      values[option.name] = option.default_value;
      names.push_back(option.name);
    }
  }
  CENTROID_CHECK(decorates || parsed.inner.empty(), "attention '", spec, "': ", parsed.name,
                 " takes no variant in parentheses");
  std::map<std::string, bool> given;
  for (const auto& [name, value] : parsed.values) {
    CENTROID_CHECK(values.contains(name), "attention '", spec, "': ", parsed.name,
                   " has no option '", name, "': expected one of ", nearest_first(names, name),
                   decorates && name == kInner ? " (write the inner variant in parentheses)" : "");
    CENTROID_CHECK(!std::exchange(given[name], true), "attention '", spec, "': option ", name,
                   " is given twice");
    values[name] = value;
  }
  return variant.factory(AttentionOptions(parsed.name, std::move(values), std::move(inner)));
}

std::vector<std::string> attention_names() {
  std::vector<std::string> names;
  for (const auto& [name, variant] : variants()) names.push_back(name);
  return names;
}

std::string attention_help() {
  std::ostringstream out;
  for (const auto& [name, variant] : variants()) {
    out << name << "\n    " << variant.help << '\n';
    size_t width = 0;
    for (const OptionSpec& option : variant.options) {
      width = std::max(width, option.name.size() + option.default_value.size() + 3);
    }
    for (const OptionSpec& option : variant.options) {
      const std::string shown = option.name == kInner ? "(" + option.default_value + ")"
                                                      : option.name + "=" + option.default_value;
      out << "      " << shown << std::string(width - shown.size(), ' ') << option.help << '\n';
    }
  }
  return out.str();
}

}  // namespace centroid::nn
