#include "apps/asr_evaluate.h"

#include "tensor/parallel.h"

namespace centroid::asr {

std::string rate_name(audio::Unit unit) {
  switch (unit) {
    case audio::Unit::phones: return "PER";
    case audio::Unit::characters: return "CER";
    case audio::Unit::words: return "WER";
    case audio::Unit::subwords: return "TER";
  }
  return "ER";
}

std::vector<std::string> score_symbols(const std::vector<std::string>& symbols,
                                       const audio::Vocab& vocab, audio::Unit unit) {
  using audio::Unit;
  if (unit == vocab.unit()) return symbols;
  const bool phones = vocab.unit() == Unit::phones;
  CENTROID_CHECK(!phones && (unit == Unit::words || unit == Unit::characters),
                 "score: a recogniser of ", audio::name_of(vocab.unit()), " can be scored in ",
                 phones                           ? "phones"
                 : vocab.unit() == Unit::subwords ? "subwords, characters or words"
                                                  : "characters or words",
                 ", not in ", audio::name_of(unit));
  audio::Utterance spoken;
  spoken.text = vocab.text(symbols);
  return audio::symbols(spoken, unit);
}

void run_model(Recognizer& model, const Dataset& data, const UseScores& use) {
  NoGrad no_grad;
  for (const nn::Batch& indices : evaluation_batches(data, 32, 32000)) {
    const SpeechBatch batch = collect(data, indices);
    const auto [x, lengths] = batch.input();
    const auto [logits, out_lengths] = model.forward(x, lengths, {});
    use(indices, batch, logits, out_lengths);
  }
}

Evaluation evaluate(Recognizer& model, const Criterion& criterion, const Dataset& data,
                    const audio::Vocab& vocab, audio::Unit unit, const Decoder* decoder) {
  NoGrad no_grad;
  Evaluation result;
  result.utterances.resize(data.size());
  double loss = 0;
  int64_t labels = 0;
  run_model(model, data,
            [&](const nn::Batch& indices, const SpeechBatch& batch, const Tensor& logits,
                const Lengths& lengths) {
              // The error rate still counts an item that is infeasible.
              loss += criterion
                          .loss(logits, lengths, batch.targets, nn::Reduction::sum,
                                /*zero_infeasible=*/true, /*scoring=*/true)
                          .item();
              const int64_t stride = logits.size(1) * logits.size(2);
              const Tensor host_logits = raw::to(logits, Device{});
              const float* scores = host_logits.data<float>();
              parallel_for(0, static_cast<int64_t>(indices.size()), 1, [&](int64_t b, int64_t) {
                ScoredUtterance& u = result.utterances[indices[b]];
                u.id = batch.ids[b];
                const float* rows = scores + b * stride;
                const auto heard = [&](const auto& decode) {
                  try {
                    return decode();
                  } catch (const Error& error) {
                    throw Error(concat(u.id, ": ", error.what()));
                  }
                };
                if (decoder) {
                  u.nbest = heard([&] { return decoder->decode(rows, lengths[b]); });
                  u.alignment = audio::align(decoder->reference(data.utterance(indices[b]), unit),
                                             decoder->symbols(u.nbest[0], unit));
                  return;
                }
                const auto said = [&](const std::vector<int32_t>& ids) {
                  return score_symbols(vocab.decode(ids), vocab, unit);
                };
                const auto tokens = heard([&] { return criterion.decode(rows, lengths[b]); });
                u.alignment =
                    audio::align(said(batch.targets.labels[b]), said(audio::ids_of(tokens)));
              });
              for (const auto& item : batch.targets.labels)
                labels += static_cast<int64_t>(item.size());
              result.seconds += batch.seconds;
            });
  for (const ScoredUtterance& u : result.utterances) result.errors.add(u.alignment);
  result.loss = labels > 0 ? loss / labels : 0;
  return result;
}

}  // namespace centroid::asr
