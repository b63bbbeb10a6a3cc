#include "apps/asr_evaluate.h"

#include "apps/audio/files.h"

namespace centroid::asr {

std::string rate_name(audio::Unit unit) {
  switch (unit) {
    case audio::Unit::phones: return "PER";
    case audio::Unit::characters: return "CER";
    case audio::Unit::words: return "WER";
  }
  return "ER";
}

std::vector<std::string> score_symbols(const std::vector<std::string>& symbols,
                                       const audio::Vocab& vocab, audio::Unit unit) {
  if (unit == vocab.unit()) return symbols;
  CENTROID_CHECK(vocab.unit() == audio::Unit::characters && unit == audio::Unit::words,
                 "score: a recogniser of ", audio::name_of(vocab.unit()), " can be scored in ",
                 audio::name_of(vocab.unit()),
                 vocab.unit() == audio::Unit::characters ? " or words" : "", ", not in ",
                 audio::name_of(unit));
  return audio::split_words(vocab.text(symbols));
}

Evaluation evaluate(Recognizer& model, const Criterion& criterion, const Dataset& data,
                    const audio::Vocab& vocab, audio::Unit unit) {
  NoGrad no_grad;
  Evaluation result;
  result.utterances.resize(data.size());
  double loss = 0;
  int64_t labels = 0;
  for (const nn::Batch& indices : evaluation_batches(data, 32, 32000)) {
    const SpeechBatch batch = collect(data, indices);
    const auto [x, lengths] = batch.input();
    const auto [logits, out_lengths] = model.forward(x, lengths, {});
    // The error rate still counts an item that is infeasible.
    loss +=
        criterion.loss(logits, out_lengths, batch.labels, nn::Reduction::sum, true, true).item();
    const int64_t stride = logits.size(1) * logits.size(2);
    const Tensor host_logits = raw::to(logits, Device{});
    for (size_t b = 0; b < indices.size(); ++b) {
      const auto tokens = criterion.decode(host_logits.data<float>() + b * stride, out_lengths[b]);
      const auto ref = vocab.decode(batch.labels[b]), hyp = vocab.decode(audio::ids_of(tokens));
      auto alignment =
          audio::align(score_symbols(ref, vocab, unit), score_symbols(hyp, vocab, unit));
      result.errors.add(alignment);
      result.utterances[indices[b]] = {batch.ids[b], std::move(alignment)};
      labels += static_cast<int64_t>(batch.labels[b].size());
    }
    result.seconds += batch.seconds;
  }
  result.loss = labels > 0 ? loss / labels : 0;
  return result;
}

}  // namespace centroid::asr
