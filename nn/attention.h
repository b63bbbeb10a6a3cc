#pragma once
// The attention interface, and the registry through which variants are chosen by a string such as
// `full`, `full:dropout=0.1` or `conditional-full:limit=512(improved-clustered:topk=16)`.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"

namespace centroid::nn {

/// Discrete choices of one attention call by name (labels, top-k indices, buckets, ...), and what
/// follows from them where a variant has it: `counts`, how many queries are in each cluster, and
/// `mass`, the share of a mean's weight on its top keys (a choice where it is frozen).
using Choices = std::map<std::string, Tensor>;

struct AttentionInput {
  Tensor q, k, v{};                  // (B, H, L, E), (B, H, S, E), (B, H, S, D); any strides
  Lengths q_lengths{}, k_lengths{};  // empty = full
  bool causal = false;               // query l sees keys s <= l
  bool training = false;             // dropout, and fresh randomness on each call
  Rng* rng = nullptr;                // all randomness of the variant; needed when training
  Choices* record = nullptr;         // receives the choices made in this call ...
  const Choices* replay = nullptr;   // ... or gives the ones to use instead of choosing
};

/// What a variant can do; the test battery reads it.
struct Capabilities {
  bool causal = false;               ///< may be called with `causal`
  bool causal_only = false;          ///< ... and must be
  bool shared_qk = false;            ///< takes the queries as keys and does not look at `k`
  bool cross = false;                ///< L != S allowed
  bool key_order_invariant = false;  ///< permuting keys (and values) changes nothing
  std::string
      exact_options;  ///< options with which it must equal full attention; "-" = there are none
  /// Options under which it approximates even at a dozen positions; the battery also runs them.
  std::vector<std::string> test_options{};
};

struct DecodeState;  // nn/decode.h

/// An attention variant: one file in nn/attention/ that derives from this and registers itself.
class Attention : public Module {
 public:
  /// -> (B, H, L, D), in memory laid out as (B, L, H, D). Rows beyond `q_lengths` and rows without
  /// valid keys are 0. Throws when asked for what `capabilities` lacks.
  virtual Tensor attend(const AttentionInput& input) = 0;
  virtual Capabilities capabilities() const = 0;

  /// Generation: the state before the first position. Throws unless the variant can be causal.
  virtual std::unique_ptr<DecodeState> start_decoding() const;
  /// Generation: one position more. `input` holds it alone, q, k and v (B, H, 1, .), without
  /// lengths; the result (B, H, 1, D) is the last row of a causal `attend` over all positions given
  /// so far. Records no history. This default keeps all of them and calls `attend`, which is always
  /// right; a variant that can do with less overrides both functions (nn/decode.h helps). Throws in
  /// training and for the state of another variant.
  virtual Tensor step(DecodeState& state, const AttentionInput& input);
};

/// The attention matrix (B, H, L, S) of any variant: what it does to unit values. `input.v` is not
/// used.
Tensor attention_weights(Attention& attention, AttentionInput input);

/// Checks shapes, dtypes, devices, lengths and capabilities; every `attend` calls it first.
void check_attention_input(const AttentionInput& input, const Capabilities& can, const char* name);

/// x (B, H, L, D) -> the same values and shape, in memory (B, L, H, D): what `attend` returns, so
/// that joining the heads costs nothing.
Tensor heads_last(const Tensor& x);

/// An option of a variant. One called `inner` makes the variant a decorator: its value is the
/// variant in parentheses after the other options, and `default_value` the one used when there are
/// none.
struct OptionSpec {
  std::string name;
  std::string default_value;
  std::string help;
};

/// The options of one variant as written, with defaults filled in.
class AttentionOptions {
 public:
  /// Made by `make_attention`.
  AttentionOptions(std::string variant, std::map<std::string, std::string> values,
                   std::string inner)
      : variant_(std::move(variant)), values_(std::move(values)), inner_(std::move(inner)) {}
  /// Typed access; throws, naming variant, option and range, when the text is not a value in
  /// [low, high]. A flag is `true`, `false`, `1` or `0`.
  int64_t integer(const std::string& name, int64_t low, int64_t high) const;
  double number(const std::string& name, double low, double high) const;
  bool flag(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  /// The variant in parentheses of a decorator, to be given to `make_attention`; "" for others.
  const std::string& inner() const { return inner_; }

 private:
  std::string variant_;
  std::map<std::string, std::string> values_;
  std::string inner_;
};

using AttentionFactory = std::function<std::unique_ptr<Attention>(const AttentionOptions&)>;

/// `static const RegisterAttention mine{"mine", help, {{"topk", "32", "keys kept"}}, factory};`
struct RegisterAttention {
  RegisterAttention(std::string name, std::string help, std::vector<OptionSpec> options,
                    AttentionFactory factory);
};

/// Builds a variant from its string: `name`, `name:option=value,option=value`, and for decorators
/// either of them followed by `(variant)`. Unknown names and options throw and list the valid ones,
/// the nearest first.
std::unique_ptr<Attention> make_attention(const std::string& spec);
/// The registered names, sorted.
std::vector<std::string> attention_names();
/// What `--help-attention` prints: every variant with its options and defaults.
std::string attention_help();

}  // namespace centroid::nn
