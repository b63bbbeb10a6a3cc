#include "nn/transformer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "autograd/recompute.h"
#include "nn/conformer.h"
#include "nn/names.h"

namespace centroid::nn {

// ---- options ------------------------------------------------------------------------------------

namespace {

// Every member once, for checking, writing and reading.
template <typename Options, typename F>
void for_each_member(Options& options, F&& f) {
  f("layers", options.layers);
  f("block", options.block);
  f("heads", options.heads);
  f("head_size", options.head_size);
  f("width", options.width);
  f("hidden", options.hidden);
  f("dropout", options.dropout);
  f("attention", options.attention);
  f("cross_attention", options.cross_attention);
  f("pre_norm", options.pre_norm);
  f("activation", options.activation);
  f("kernel", options.kernel);
  f("positions", options.positions);
  f("max_length", options.max_length);
  f("causal", options.causal);
  f("recompute", options.recompute);
}

void read_member(const nlohmann::json& json, const char* name, const char* kind, bool fits) {
  CENTROID_CHECK(fits, "transformer options: ", name, ": expected ", kind, ", got ", json.dump());
}
void read(const nlohmann::json& json, const char* name, int64_t& value) {
  read_member(json, name, "a whole number", json.is_number_integer());
  value = json.get<int64_t>();
}
void read(const nlohmann::json& json, const char* name, double& value) {
  read_member(json, name, "a number", json.is_number());
  value = json.get<double>();
}
void read(const nlohmann::json& json, const char* name, bool& value) {
  read_member(json, name, "true or false", json.is_boolean());
  value = json.get<bool>();
}
void read(const nlohmann::json& json, const char* name, std::string& value) {
  read_member(json, name, "a text", json.is_string());
  value = json.get<std::string>();
}
void read(const nlohmann::json& json, const char* name, Positions& value) {
  read_member(json, name, "a text", json.is_string());
  value = parse_positions(json.get<std::string>());
}

}  // namespace

void check(const TransformerOptions& options) {
  const auto at_least = [](int64_t value, int64_t low, const char* name) {
    CENTROID_CHECK(value >= low, "transformer: ", name, ": expected at least ", low, ", got ",
                   value);
  };
  at_least(options.layers, 1, "layers");
  at_least(options.heads, 1, "heads");
  at_least(options.head_size, 0, "head_size");
  at_least(options.width, 1, "width");
  at_least(options.hidden, 1, "hidden");
  CENTROID_CHECK(options.head_size > 0 || options.width % options.heads == 0, "transformer: width ",
                 options.width, " cannot be divided into ", options.heads,
                 " heads (choose another width or number of heads, or set head_size)");
  CENTROID_CHECK(options.dropout >= 0 && options.dropout < 1,
                 "transformer: dropout: expected a value in [0, 1), got ", options.dropout);
  parse_activation(options.activation);
  CENTROID_CHECK(options.block == "transformer" || options.block == "conformer",
                 "transformer: block: expected transformer or conformer, got '", options.block,
                 "'");
  if (options.block == "conformer") {
    CENTROID_CHECK(!options.causal, "transformer: a conformer looks ahead and cannot be causal ",
                   "(use block = transformer)");
    CENTROID_CHECK(options.pre_norm, "transformer: a conformer's parts begin with their norms: ",
                   "expected pre_norm");
  }
  const int64_t head_size =
      options.head_size > 0 ? options.head_size : options.width / options.heads;
  CENTROID_CHECK(options.positions != Positions::rotary || head_size % 2 == 0,
                 "transformer: rotary positions need an even head size, got ", head_size);
}

void to_json(nlohmann::json& json, const TransformerOptions& options) {
  json = nlohmann::json::object();
  for_each_member(options, [&](const char* name, const auto& value) {
    if constexpr (std::is_same_v<decltype(value), const Positions&>) {
      json[name] = to_string(value);
    } else {
      json[name] = value;
    }
  });
}

void from_json(const nlohmann::json& json, TransformerOptions& options) {
  CENTROID_CHECK(json.is_object(), "transformer options: expected an object, got ", json.dump());
  std::vector<std::string> names;
  for_each_member(options, [&](const char* name, auto& value) {
    names.push_back(name);
    if (json.contains(name)) read(json.at(name), name, value);
  });
  for (const auto& [key, value] : json.items()) {
    CENTROID_CHECK(std::find(names.begin(), names.end(), key) != names.end(),
                   "transformer options: unknown '", key, "': expected one of ",
                   nearest_first(names, key));
  }
}

// ---- layers -------------------------------------------------------------------------------------

std::unique_ptr<DecodeState> EncoderBlock::start_decoding() const {
  throw Error(concat(path(), ": this layer looks ahead: it cannot go step by step"));
}

Tensor EncoderBlock::step(DecodeState&, const Tensor&, int64_t) {
  throw Error(concat(path(), ": this layer looks ahead: it cannot go step by step"));
}

EncoderLayer::EncoderLayer(const TransformerOptions& options, Rng& rng)
    : attention_(options, options.attention, options.causal, rng),
      ff_(options.width, options.hidden, parse_activation(options.activation), options.dropout,
          rng),
      norm1_(options.width),
      norm2_(options.width),
      dropout_(options.dropout),
      pre_norm_(options.pre_norm) {
  add_module("attention", attention_);
  add_module("ff", ff_);
  add_module("norm1", norm1_);
  add_module("norm2", norm2_);
}

template <typename Attend>
Tensor EncoderLayer::around(const Attend& attend, const Tensor& x, const Context& context) const {
  const auto attended = [&](const Tensor& h) { return dropout_.forward(attend(h), context); };
  const auto feed = [&](const Tensor& h) {
    return dropout_.forward(ff_.forward(h, context), context);
  };
  if (pre_norm_) {
    const Tensor h = x + attended(norm1_.forward(x));
    return h + feed(norm2_.forward(h));
  }
  const Tensor h = norm1_.forward(x + attended(x));
  return norm2_.forward(h + feed(h));
}

Tensor EncoderLayer::forward(const Tensor& x, const Lengths& lengths, const Context& context) {
  const auto attend = [&](const Tensor& h) {
    return attention_.forward(h, h, lengths, lengths, context);
  };
  return around(attend, x, context);
}

Tensor EncoderLayer::step(DecodeState& state, const Tensor& x, int64_t position) {
  const NoGrad off;
  return around([&](const Tensor& h) { return attention_.step(state, h, position); }, x, {});
}

DecoderLayer::DecoderLayer(const TransformerOptions& options, Rng& rng)
    : self_(options, options.attention, true, rng),
      cross_(options, options.cross_attention, false, rng),
      ff_(options.width, options.hidden, parse_activation(options.activation), options.dropout,
          rng),
      norm1_(options.width),
      norm2_(options.width),
      norm3_(options.width),
      dropout_(options.dropout),
      pre_norm_(options.pre_norm) {
  add_module("self", self_);
  add_module("cross", cross_);
  add_module("ff", ff_);
  add_module("norm1", norm1_);
  add_module("norm2", norm2_);
  add_module("norm3", norm3_);
}

Tensor DecoderLayer::forward(const Tensor& x, const Lengths& lengths, const Tensor& memory,
                             const Lengths& memory_lengths, const Context& context) {
  const auto attend = [&](const Tensor& h) {
    return dropout_.forward(self_.forward(h, h, lengths, lengths, context), context);
  };
  const auto look = [&](const Tensor& h) {
    return dropout_.forward(cross_.forward(h, memory, lengths, memory_lengths, context), context);
  };
  const auto feed = [&](const Tensor& h) {
    return dropout_.forward(ff_.forward(h, context), context);
  };
  if (pre_norm_) {
    Tensor h = x + attend(norm1_.forward(x));
    h = h + look(norm2_.forward(h));
    return h + feed(norm3_.forward(h));
  }
  Tensor h = norm1_.forward(x + attend(x));
  h = norm2_.forward(h + look(h));
  return norm3_.forward(h + feed(h));
}

// ---- stacks -------------------------------------------------------------------------------------

namespace {

// Runs f(inputs, context), keeping only `inputs` for backward if `again`. The tap of the context
// sees the first run alone.
template <typename F>
Tensor run_layer(bool again, const std::vector<Tensor>& inputs, const Context& context, F f) {
  if (!again || !grad_enabled()) return f(inputs, context);
  const auto kept = std::make_shared<Context>(context);
  const auto once_or_twice = [kept, f](const std::vector<Tensor>& xs) -> std::vector<Tensor> {
    const Tensor y = f(xs, *kept);
    kept->tap = nullptr;
    return {y};
  };
  std::vector<Rng*> rngs;
  if (context.rng) rngs.push_back(context.rng);
  return recompute(once_or_twice, inputs, rngs)[0];
}

const TransformerOptions& checked(const TransformerOptions& options) {
  check(options);
  return options;
}

void check_sequence(const Tensor& x, const Lengths& lengths, int64_t width, const char* what) {
  CENTROID_CHECK(x.dim() == 3 && x.size(0) >= 1 && x.size(1) >= 1 && x.size(2) == width, what,
                 ": expected (B, T, ", width, ") with B and T at least 1, got ", x.shape());
  lengths.check(x.size(0), x.size(1), what);
}

}  // namespace

namespace {

std::unique_ptr<EncoderBlock> make_block(const TransformerOptions& options, Rng& rng) {
  if (options.block == "conformer") return std::make_unique<ConformerLayer>(options, rng);
  return std::make_unique<EncoderLayer>(options, rng);
}

}  // namespace

Encoder::Encoder(const TransformerOptions& options, Rng& rng)
    : options_(checked(options)),
      positions_(options.positions, options.width, options.max_length, rng),
      dropout_(options.dropout),
      norm_(options.width) {
  add_module("positions", positions_);
  for (int64_t i = 0; i < options.layers; ++i) {
    layers_.push_back(make_block(options, rng));
    add_module(concat("layers.", i), *layers_.back());
  }
  if (options.pre_norm) add_module("norm", norm_);
}

std::vector<Tensor> Encoder::forward_at(const std::vector<int64_t>& layers, const Tensor& x,
                                        const Lengths& lengths, const Context& context) {
  check_sequence(x, lengths, options_.width, "Encoder");
  std::vector<Tensor> results;
  // Masked at both ends: whatever stands in the padding, NaN included, meets no other number.
  Tensor h = dropout_.forward(positions_.forward(mask_padding(x, lengths)), context);
  for (int64_t done = 0; const int64_t wanted : layers) {
    CENTROID_CHECK(wanted > done && wanted <= options_.layers,
                   "Encoder: layers: expected ascending numbers from 1 to ", options_.layers,
                   ", got ", wanted);
    for (; done < wanted; ++done) {
      h = run_layer(options_.recompute, {h}, context,
                    [layer = layers_[done].get(), lengths](const std::vector<Tensor>& xs,
                                                           const Context& now) {
                      return layer->forward(xs[0], lengths, now);
                    });
    }
    results.push_back(mask_padding(options_.pre_norm ? norm_.forward(h) : h, lengths));
  }
  return results;
}

std::pair<Tensor, Lengths> Encoder::forward(const Tensor& x, const Lengths& lengths,
                                            const Context& context) {
  return {forward_at({options_.layers}, x, lengths, context)[0], lengths};
}

EncoderState Encoder::start_decoding() const {
  CENTROID_CHECK(options_.causal,
                 "Encoder: only a causal encoder can go step by step (set options.causal)");
  EncoderState state;
  for (const auto& layer : layers_) state.layers.push_back(layer->start_decoding());
  return state;
}

Tensor Encoder::step(EncoderState& state, const Tensor& x) {
  check_sequence(x, {}, options_.width, "Encoder: step");
  CENTROID_CHECK(x.size(1) == 1, "Encoder: step: expected one position, got ", x.shape());
  CENTROID_CHECK(state.layers.size() == layers_.size(), "Encoder: step: the encoder has ",
                 layers_.size(), " layers, the state ", state.layers.size(),
                 " (begin with start_decoding)");
  const NoGrad off;
  Tensor h = positions_.forward(x, state.position);
  for (size_t i = 0; i < layers_.size(); ++i) {
    h = layers_[i]->step(*state.layers[i], h, state.position);
  }
  ++state.position;
  return options_.pre_norm ? norm_.forward(h) : h;
}

Decoder::Decoder(const TransformerOptions& options, Rng& rng)
    : options_(checked(options)),
      positions_(options.positions, options.width, options.max_length, rng),
      dropout_(options.dropout),
      norm_(options.width) {
  add_module("positions", positions_);
  for (int64_t i = 0; i < options.layers; ++i) {
    add_module(concat("layers.", i), layers_.emplace_back(options, rng));
  }
  if (options.pre_norm) add_module("norm", norm_);
}

std::pair<Tensor, Lengths> Decoder::forward(const Tensor& x, const Lengths& lengths,
                                            const Tensor& memory, const Lengths& memory_lengths,
                                            const Context& context) {
  check_sequence(x, lengths, options_.width, "Decoder");
  check_sequence(memory, memory_lengths, options_.width, "Decoder: memory");
  CENTROID_CHECK(memory.size(0) == x.size(0), "Decoder: batches differ: x is ", x.shape(),
                 ", memory is ", memory.shape());
  const Tensor source = mask_padding(memory, memory_lengths);
  Tensor h = dropout_.forward(positions_.forward(mask_padding(x, lengths)), context);
  for (DecoderLayer& layer : layers_) {
    h = run_layer(
        options_.recompute, {h, source}, context,
        [&layer, lengths, memory_lengths](const std::vector<Tensor>& xs, const Context& now) {
          return layer.forward(xs[0], lengths, xs[1], memory_lengths, now);
        });
  }
  if (options_.pre_norm) h = norm_.forward(h);
  return {mask_padding(h, lengths), lengths};
}

}  // namespace centroid::nn
