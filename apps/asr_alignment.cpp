#include "apps/asr_alignment.h"

#include "apps/audio/files.h"
#include "apps/audio/words.h"
#include "autograd/node.h"
#include "tensor/parallel.h"

namespace centroid::asr {

namespace {

/// What the text of an utterance may be in symbols, and which word each node belongs to.
struct Transcripts {
  audio::LabelGraph graph;
  std::vector<std::string> words;
  std::vector<size_t> word_of;  // node -> index in `words`
};

Transcripts transcripts_of(const audio::Utterance& u, const audio::Vocab& vocab,
                           const audio::Lexicon& lexicon) {
  Transcripts out;
  out.words = audio::split_words(u.text);
  CENTROID_CHECK(!out.words.empty(), "expected a text to align with, got none");
  std::string unknown;
  for (const std::string& word : out.words) {
    if (!lexicon.find(word)) unknown += (unknown.empty() ? "" : ", ") + word;
  }
  CENTROID_CHECK(unknown.empty(), "not in the lexicon: ", unknown);
  std::vector<int32_t> ends = {-1};
  for (size_t w = 0; w < out.words.size(); ++w) {
    std::vector<int32_t> next;
    for (const audio::Pronunciation& p : *lexicon.find(out.words[w])) {
      audio::Utterance spoken = u;
      spoken.phones = p.phones;
      next.push_back(out.graph.add_chain(vocab.encode(spoken), ends));
      out.word_of.resize(out.graph.nodes.size(), w);
    }
    ends = std::move(next);
  }
  out.graph.finals = std::move(ends);
  return out;
}

std::vector<audio::TimedWord> words_of(const std::vector<audio::AlignedLabel>& labels,
                                       const std::vector<audio::TimedWord>& symbols,
                                       const Transcripts& transcripts) {
  std::vector<audio::TimedWord> words;
  for (size_t begin = 0, end = 0; begin < labels.size(); begin = end) {
    const size_t word = transcripts.word_of[labels[begin].node];
    while (end < labels.size() && transcripts.word_of[labels[end].node] == word) ++end;
    words.push_back(audio::join_symbols(symbols, begin, end, transcripts.words[word]));
  }
  return words;
}

/// The scores of one item, (frames, V).
struct Scores {
  const float* logits;
  int64_t frames, classes;
};

void align_one(const Scores& s, const audio::Utterance& u, const std::vector<int32_t>& labels,
               const audio::Vocab& vocab, const audio::Lexicon& lexicon,
               const audio::SegmentOptions& options, AlignedUtterance* out) {
  Transcripts transcripts;
  if (lexicon.empty()) {
    CENTROID_CHECK(!labels.empty(), "expected ", audio::name_of(vocab.unit()),
                   " to align with, got none");
    transcripts.graph = audio::linear_graph(labels);
  } else {
    transcripts = transcripts_of(u, vocab, lexicon);
  }
  const audio::Alignment alignment =
      audio::forced_align(s.logits, s.frames, s.classes, transcripts.graph, audio::Vocab::kBlank);
  out->log_prob = alignment.log_prob / static_cast<double>(s.frames);
  out->symbols = audio::place_segments(alignment.labels, options);
  for (size_t i = 0; i < alignment.labels.size(); ++i) {
    out->symbols[i].text = vocab.tokens()[alignment.labels[i].label];
  }
  if (!lexicon.empty()) {
    out->words = words_of(alignment.labels, out->symbols, transcripts);
  } else if (vocab.unit() != audio::Unit::phones) {
    out->words = audio::words_of(out->symbols, vocab.unit());
  }
  std::erase_if(out->symbols,
                [](const audio::TimedWord& symbol) { return symbol.text == audio::kSpace; });
}

}  // namespace

double first_frame_centre(const TrainedRecognizer& r) {
  const audio::Fbank fbank(r.front_end.fbank);
  const double rate = r.front_end.fbank.rate;
  // Frames begin with the sound, or are centred on the middle of each shift. Of stacked frames it
  // is the middle one; the subsampling convolutions are centred on the first of the frames they
  // join.
  const auto samples = static_cast<double>(r.front_end.fbank.snip_edges ? fbank.frame_length()
                                                                        : fbank.frame_shift());
  return 0.5 * samples / rate +
         0.5 * static_cast<double>((r.front_end.stack - 1) * fbank.frame_shift()) / rate;
}

audio::SegmentOptions segment_options(const TrainedRecognizer& recognizer, double seconds) {
  audio::SegmentOptions options;
  options.frame_seconds = recognizer.frame_seconds();
  options.first_centre = first_frame_centre(recognizer);
  options.end = seconds;
  return options;
}

std::vector<AlignedUtterance> align_dataset(TrainedRecognizer& recognizer, const Dataset& data,
                                            const audio::Lexicon& lexicon,
                                            const audio::SegmentOptions& placing) {
  const audio::Vocab& vocab = recognizer.vocab;
  CENTROID_CHECK(lexicon.empty() || vocab.unit() == audio::Unit::phones,
                 "align: lexicon: expected a recogniser of phones, got one of ",
                 audio::name_of(vocab.unit()), " (it needs no lexicon)");
  NoGrad no_grad;
  std::vector<AlignedUtterance> out(data.size());
  for (const nn::Batch& indices : evaluation_batches(data, 32, 32000)) {
    const auto [x, lengths] = collect(data, indices).input();
    const auto [logits, out_lengths] = recognizer.model->forward(x, lengths, {});
    const Tensor scores = raw::to(logits, Device{});
    const int64_t longest = scores.size(1), classes = vocab.size();
    parallel_for(0, static_cast<int64_t>(indices.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const audio::Utterance& u = data.utterance(indices[b]);
        AlignedUtterance& item = out[indices[b]];
        item.id = u.id;
        item.seconds = u.duration;
        audio::SegmentOptions options = segment_options(recognizer, u.duration);
        options.shift = placing.shift;
        options.reach = placing.reach;
        try {
          align_one({scores.data<float>() + b * longest * classes, out_lengths[b], classes}, u,
                    data.labels(indices[b]), vocab, lexicon, options, &item);
        } catch (const Error& error) {
          item.error = error.what();
        }
      }
    });
  }
  return out;
}

}  // namespace centroid::asr
