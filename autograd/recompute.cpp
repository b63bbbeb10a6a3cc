// Recomputation. The first run of `f` keeps its inputs only. When backward arrives at its node, the
// second run records an ordinary tape behind the same inputs, and the running engine goes on
// through that tape (continue_backward). No engine runs inside another, so every contribution is
// added in the order in which it would have been added without recomputation: the gradients are the
// same bits.
#include "autograd/recompute.h"

#include <algorithm>

#include "tensor/trace.h"

namespace centroid {
namespace {

using Function = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
using Choices = std::vector<std::vector<Tensor>>;

// Where the choices made now are written to or read from; scopes form a stack on each thread.
class ChoiceScope {
 public:
  enum class Mode { record, replay };
  ChoiceScope(Choices& choices, Mode mode) : choices_(choices), mode_(mode), outer_(t_current) {
    t_current = this;
  }
  ~ChoiceScope() { t_current = outer_; }
  ChoiceScope(const ChoiceScope&) = delete;

  // In a first run the choice is the outer scope's: an inner `recompute` in the second run of an
  // outer one must record what the outer first run chose.
  static std::vector<Tensor> choose(ChoiceScope* scope,
                                    const std::function<std::vector<Tensor>()>& f) {
    if (!scope) return f();
    if (scope->mode_ == Mode::replay) {
      CENTROID_CHECK(scope->next_ < scope->choices_.size(),
                     "replayable: the second run asks for choice ", scope->next_ + 1,
                     ", the first run made ", scope->choices_.size());
      return scope->choices_[scope->next_++];
    }
    std::vector<Tensor> chosen = choose(scope->outer_, f);
    for (Tensor& t : chosen) t = t.defined() ? t.detach() : t;
    scope->choices_.push_back(chosen);
    return chosen;
  }
  static ChoiceScope* current() { return t_current; }
  size_t replayed() const { return next_; }

 private:
  static thread_local ChoiceScope* t_current;
  Choices& choices_;
  Mode mode_;
  size_t next_ = 0;
  ChoiceScope* outer_;
};
thread_local ChoiceScope* ChoiceScope::t_current = nullptr;

// Notes whether a parameter or an input with a history was used while recording was off.
class SkippedProbe {
 public:
  SkippedProbe() : outer_(detail::skipped_recording()) { detail::skipped_recording() = false; }
  ~SkippedProbe() { detail::skipped_recording() |= outer_; }
  bool skipped() const { return detail::skipped_recording(); }

 private:
  bool outer_;
};

// Puts the generators into given states, and back into the present ones at the end.
class RngScope {
 public:
  RngScope(const std::vector<Rng*>& rngs, const std::vector<RngState>& states) : rngs_(rngs) {
    for (size_t i = 0; i < rngs.size(); ++i) {
      present_.push_back(rngs[i]->state());
      rngs[i]->set_state(states[i]);
    }
  }
  ~RngScope() {
    for (size_t i = 0; i < rngs_.size(); ++i) rngs_[i]->set_state(present_[i]);
  }

 private:
  const std::vector<Rng*>& rngs_;
  std::vector<RngState> present_;
};

// All that the second run needs.
struct Segment {
  Function f;
  std::vector<Tensor> inputs;  // with their histories: the second run's tape leads back to them
  std::vector<Saved> saved;    // the same data, to notice changes in place
  std::vector<Rng*> rngs;
  std::vector<RngState> states;
  Choices choices;
};

std::vector<Tensor> run_again(Segment& s, const std::vector<Shape>& shapes) {
  for (const Saved& value : s.saved) value.get();
  TracePhase phase("recompute");
  NoGrad grad(/*off=*/false);
  RngScope rng_scope(s.rngs, s.states);
  ChoiceScope scope(s.choices, ChoiceScope::Mode::replay);
  std::vector<Tensor> ys = s.f(s.inputs);
  CENTROID_CHECK(ys.size() == shapes.size(), "the second run: expected ", shapes.size(),
                 " results as in the first, got ", ys.size());
  for (size_t i = 0; i < ys.size(); ++i) {
    CENTROID_CHECK(!ys[i].defined() || ys[i].shape() == shapes[i], "the second run: result ", i,
                   ": expected shape ", shapes[i], " as in the first, got ", ys[i].shape(),
                   " (f depends on something that changed)");
  }
  CENTROID_CHECK(scope.replayed() == s.choices.size(), "the second run: expected ",
                 s.choices.size(), " choices as in the first, got ", scope.replayed());
  return ys;
}

}  // namespace

std::vector<Tensor> recompute(const Function& f, const std::vector<Tensor>& inputs,
                              const std::vector<Rng*>& rngs) {
  if (!grad_enabled()) return f(inputs);
  auto segment = std::make_shared<Segment>();
  segment->rngs = rngs;
  for (const Rng* rng : rngs) segment->states.push_back(rng->state());
  std::vector<Tensor> ys;
  bool wanted = false;
  {
    NoGrad no_grad;
    SkippedProbe probe;
    ChoiceScope scope(segment->choices, ChoiceScope::Mode::record);
    ys = f(inputs);
    wanted = probe.skipped() || std::any_of(ys.begin(), ys.end(), needs_grad);
  }
  if (!wanted) return ys;
  segment->f = f;
  segment->inputs = inputs;
  segment->saved.assign(inputs.begin(), inputs.end());
  std::vector<Shape> shapes;
  for (const Tensor& y : ys) shapes.push_back(y.defined() ? y.shape() : Shape());
  // Recorded even if no input needs a gradient: parameters inside `f` do. No gradients are
  // returned, as the second run's tape ends at the inputs themselves.
  return detail::attach("recompute", ys, inputs,
                        [=](const std::vector<Tensor>& dys, const Needs& needs) -> Grads {
                          continue_backward(run_again(*segment, shapes), dys);
                          return Grads(needs.size());
                        });
}

std::vector<Tensor> replayable(const std::function<std::vector<Tensor>()>& choose) {
  return ChoiceScope::choose(ChoiceScope::current(), choose);
}

}  // namespace centroid
