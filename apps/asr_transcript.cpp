#include "apps/asr_transcript.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>

#include "apps/asr_alignment.h"
#include "apps/audio/decode.h"
#include "apps/audio/words.h"
#include "autograd/node.h"

namespace centroid::asr {

namespace {

constexpr int64_t kBlock = 1 << 18;           // samples read at a time
constexpr double kStretch = 20, kMargin = 1;  // seconds that are decoded at a time, and left
constexpr int64_t kLongest = 6;               // stretches that are decoded at once at most

/// Dither belongs to training.
audio::FbankOptions undithered(audio::FbankOptions options) {
  options.dither = 0;
  return options;
}

/// Hands the features of a whole recording, a part at a time, to `use`.
void for_parts(const FrontEnd& front_end, const std::string& path, int raw_rate,
               const std::function<void(audio::Features)>& use) {
  audio::SoundStream sound(path, front_end.fbank.rate, raw_rate);
  audio::FbankStream fbank(undithered(front_end.fbank));
  for (auto samples = sound.read(kBlock); !samples.empty(); samples = sound.read(kBlock)) {
    use(fbank.push(samples));
  }
  use(fbank.finish());
}

/// Rows of scores on the host.
struct Rows {
  std::vector<float> data;
  int64_t first = 0;  // number of the first one in the recording
  int64_t count = 0;

  void drop(int64_t rows, int64_t classes) {
    data.erase(data.begin(), data.begin() + rows * classes);
    first += rows;
    count -= rows;
  }
};

/// The last ones, which are more than an n-gram looks back.
template <typename T>
std::span<const T> tail(const std::vector<T>& items) {
  return std::span<const T>(items).last(std::min<size_t>(items.size(), 16));
}

class Transcriber {
 public:
  Transcriber(TrainedRecognizer& recognizer, const std::string& path, int raw_rate,
              const WindowOptions& options, const FrameDecoder& decoder)
      : recognizer_(recognizer),
        front_end_(recognizer.front_end),
        decoder_(decoder),
        classes_(recognizer.model->options().classes),
        step_(front_end_.stride * recognizer.model->options().subsampling),
        sound_(path, front_end_.fbank.rate, raw_rate),
        fbank_(undithered(front_end_.fbank)),
        stretch_(std::llround(kStretch / recognizer.frame_seconds())),
        margin_(std::llround(kMargin / recognizer.frame_seconds())),
        whole_(options.whole) {
    // The recording's speaker is not known from a manifest.
    const bool own = front_end_.normalize == "utterance" || front_end_.normalize == "speaker";
    if (options.recording_statistics && options.window > 0 && own) take_statistics(path, raw_rate);
    if (options.window == 0) return;
    const double seconds = recognizer.frame_seconds();
    const auto rows = [&](double s) { return int64_t{std::llround(s / seconds)} * step_; };
    window_ = std::max(step_, rows(options.window));
    hop_ = std::max(step_, window_ - rows(options.overlap));
  }

  Transcript run() {
    if (window_ == 0) {
      fill(-1);
      add(scores(std::move(buffer_), 0));
    } else {
      windows();
    }
    CENTROID_CHECK(!whole_ || waiting_.count + pending_.count <= kLongest * stretch_,
                   "nbest: expected a recording of at most ", kLongest * kStretch, " s, got ",
                   sound_.seconds(), " s");
    listen(pending_.count);
    decode(/*last=*/true);
    return finish();
  }

 private:
  // Of the whole recording, for windows that are to be normalised alike.
  void take_statistics(const std::string& path, int raw_rate) {
    if (front_end_.dynamic_range > 0) {
      for_parts(front_end_, path, raw_rate,
                [&](const audio::Features& part) { audio::raise_maxima(maxima_, part); });
    }
    audio::StatsAccumulator stats;
    for_parts(front_end_, path, raw_rate, [&](audio::Features part) {
      front_end_.limit(part, maxima_);
      stats.add(part);
    });
    front_end_.stats = stats.finish();
    front_end_.normalize = "global";
  }

  // Reads until the buffer holds `frames` frames (all of them: -1) or the sound ends.
  void fill(int64_t frames) {
    while (!ended_ && (frames < 0 || buffer_.frames < frames)) {
      const std::vector<float> samples = sound_.read(kBlock);
      ended_ = samples.empty();
      const audio::Features rows = ended_ ? fbank_.finish() : fbank_.push(samples);
      buffer_.bins = rows.bins;
      buffer_.frames += rows.frames;
      buffer_.data.insert(buffer_.data.end(), rows.data.begin(), rows.data.end());
    }
    CENTROID_CHECK(buffer_.frames > 0, "expected at least one frame of sound, got ",
                   sound_.seconds(), " s");
  }

  void windows() {
    for (int64_t begin = 0;; begin += hop_) {  // of the window, in frames of the filterbank
      // One frame more tells whether the sound goes on behind the window.
      fill(begin + window_ + 1 - buffer_begin_);
      const int64_t end = buffer_begin_ + buffer_.frames;
      const bool last = end <= begin + window_;
      if (last) begin = std::min(begin, std::max(buffer_begin_, (end - window_) / step_ * step_));
      drop(begin);
      audio::Features part{std::min(window_, buffer_.frames), buffer_.bins, {}};
      part.data.assign(buffer_.data.begin(), buffer_.data.begin() + part.frames * part.bins);
      if (last) part = buffer_;
      add(scores(std::move(part), begin / step_));
      if (last) return;
    }
  }

  void drop(int64_t begin) {
    const int64_t frames = begin - buffer_begin_;
    buffer_.data.erase(buffer_.data.begin(), buffer_.data.begin() + frames * buffer_.bins);
    buffer_.frames -= frames;
    buffer_begin_ = begin;
  }

  // Frames of the filterbank -> rows of scores, of which the first is row `first` of the recording.
  Rows scores(audio::Features features, int64_t first) {
    ++windows_;
    Tensor x;
    Lengths lengths;
    {
      // The recording's limit is above a window's own, which then changes nothing.
      if (!maxima_.empty()) front_end_.limit(features, maxima_);
      const audio::Features input = front_end_.finish(std::move(features));
      std::tie(x, lengths) = pad_features({&input});
    }
    const auto [logits, out_lengths] = recognizer_.model->forward(x, lengths, {});
    const Tensor host = raw::to(logits, Device{});
    Rows rows{{}, first, out_lengths[0]};
    rows.data.assign(host.data<float>(), host.data<float>() + rows.count * classes_);
    return rows;
  }

  // Takes the next window's scores: those of the window before count up to the seam.
  void add(Rows rows) {
    if (pending_.count > 0) {
      const int64_t from = std::max(pending_.first, rows.first);
      const int64_t common = pending_.first + pending_.count - from;
      const int64_t at = from + seam(pending_.data.data() + (from - pending_.first) * classes_,
                                     rows.data.data() + (from - rows.first) * classes_, common,
                                     classes_, audio::Vocab::kBlank);
      listen(at - pending_.first);
      rows.drop(at - rows.first, classes_);
    }
    pending_ = std::move(rows);
  }

  // Hands the first `count` of the pending rows to the decoder.
  void listen(int64_t count) {
    const float* row = pending_.data.data();
    while (count > 0) {
      const int64_t some = std::min(count, stretch_);
      waiting_.data.insert(waiting_.data.end(), row, row + some * classes_);
      waiting_.count += some;
      row += some * classes_;
      count -= some;
      if (!whole_ && waiting_.count >= stretch_) decode(/*last=*/false);
    }
  }

  // Decodes the rows that wait, and keeps what may go on behind them waiting.
  void decode(bool last) {
    if (waiting_.count == 0) return;
    audio::BeamContext context{{}, {}, last};
    for (const audio::AlignedLabel& token : tail(tokens_)) context.tokens.push_back(token.label);
    for (const audio::Hypothesis::Word& word : tail(words_)) context.words.push_back(word.text);
    Heard heard = decoder_(waiting_.data.data(), waiting_.count, context);
    const auto tokens = static_cast<int64_t>(heard.tokens.size());
    const auto words = static_cast<int64_t>(heard.words.size());
    Cut cut{tokens, words, waiting_.count};
    if (!last) cut = cut_of(heard);
    if (cut.frame == 0 && waiting_.count < kLongest * stretch_) return;
    if (cut.frame == 0) cut = {tokens, words, waiting_.count};
    take(std::move(heard), cut);
  }

  // A place between two symbols or words of a stretch: how many stand before it.
  struct Cut {
    int64_t tokens = 0, words = 0, frame = 0;
  };

  // The last beginning of a symbol, or word, that is not in the stretch's last second.
  Cut cut_of(const Heard& heard) const {
    const int64_t latest = std::max(int64_t{0}, waiting_.count - margin_);
    Cut cut{0, 0, latest};
    if (heard.tokens.empty()) return cut;
    cut.frame = std::min(latest, heard.tokens[0].begin);
    const auto offer = [&](int64_t tokens, int64_t words) {
      if (tokens == static_cast<int64_t>(heard.tokens.size())) return;
      const int64_t begin = heard.tokens[tokens].begin;
      if (begin <= latest) cut = {tokens, words, begin};
    };
    if (!heard.has_words) {
      for (size_t i = 0; i < heard.tokens.size(); ++i) offer(static_cast<int64_t>(i), 0);
      return cut;
    }
    int64_t behind = 0;
    for (size_t i = 0; i < heard.words.size(); ++i) {
      const audio::Hypothesis::Word& word = heard.words[i];
      if (word.count == 0) continue;
      offer(word.first, static_cast<int64_t>(i));
      behind = word.first + word.count;
    }
    offer(behind, static_cast<int64_t>(heard.words.size()));
    return cut;
  }

  // What was heard before the cut is final.
  void take(Heard heard, const Cut& cut) {
    has_words_ = heard.has_words;
    const auto known = static_cast<int64_t>(tokens_.size());
    for (audio::AlignedLabel token : std::span(heard.tokens).first(cut.tokens)) {
      token.begin += waiting_.first;
      token.end += waiting_.first;
      tokens_.push_back(token);
    }
    int64_t behind = 0;
    for (audio::Hypothesis::Word word : std::span(heard.words).first(cut.words)) {
      behind = word.first + word.count;
      word.first += known;
      words_.push_back(std::move(word));
    }
    const bool all = cut.tokens == static_cast<int64_t>(heard.tokens.size());
    if (all && !heard.complete && behind < cut.tokens && unfinished_ < 0) {
      unfinished_ = known + behind;
    }
    others_ = std::move(heard.others);
    waiting_.drop(cut.frame, classes_);
  }

  Transcript finish() const {
    Transcript out;
    out.seconds = sound_.seconds();
    out.windows = windows_;
    out.symbols = audio::place_segments(tokens_, segment_options(recognizer_, out.seconds));
    std::vector<int32_t> ids;
    for (const audio::AlignedLabel& token : tokens_) ids.push_back(token.label);
    const std::vector<std::string> symbols = recognizer_.vocab.decode(ids);
    for (size_t i = 0; i < symbols.size(); ++i) out.symbols[i].text = symbols[i];
    out.text = recognizer_.vocab.text(symbols);
    out.others = others_;
    out.words = audio::words_of(out.symbols, recognizer_.vocab.unit());
    if (has_words_) use_words(out);
    if (unfinished_ >= 0) out.unfinished = out.symbols[unfinished_].begin;
    return out;
  }

  // The decoder's own words, where their tokens are.
  void use_words(Transcript& out) const {
    out.words.clear();
    out.text.clear();
    for (const audio::Hypothesis::Word& word : words_) {
      if (word.count == 0) continue;
      const audio::TimedWord &first = out.symbols[word.first],
                             &last = out.symbols[word.first + word.count - 1];
      out.words.push_back({word.text, first.begin, last.end, word.confidence});
      out.text += (out.text.empty() ? "" : " ") + word.text;
    }
  }

  TrainedRecognizer& recognizer_;
  FrontEnd front_end_;
  std::vector<float> maxima_;  // of the recording's bands, where they limit windows
  const FrameDecoder& decoder_;
  int64_t classes_, step_;        // step_: frames of the filterbank to a row of scores
  int64_t window_ = 0, hop_ = 0;  // frames of the filterbank; window_ 0: one pass
  audio::SoundStream sound_;
  audio::FbankStream fbank_;
  audio::Features buffer_;    // frames of the filterbank, not normalised ...
  int64_t buffer_begin_ = 0;  // ... from this one on
  bool ended_ = false;        // the buffer holds the last frame
  Rows pending_;              // scores of the last window, behind its seam
  Rows waiting_;              // scores before it that are not decoded for good
  int64_t stretch_, margin_;  // rows that are decoded at a time, of which so many stay
  bool whole_;
  std::vector<audio::AlignedLabel> tokens_;
  bool has_words_ = false;
  std::vector<audio::Hypothesis::Word> words_;  // by tokens
  std::vector<std::string> others_;
  int64_t unfinished_ = -1;  // the first token without a word that should have one
  int64_t windows_ = 0;
};

}  // namespace

FrameDecoder greedy_decoder(const audio::Vocab& vocab) {
  return [classes = vocab.size()](const float* logits, int64_t frames, const auto&) {
    std::vector<double> normaliser;
    for (int64_t t = 0; t < frames; ++t) {
      normaliser.push_back(audio::log_normaliser(logits + t * classes, classes, t));
    }
    Heard out;
    for (const audio::Token& t : audio::greedy_ctc(logits, frames, classes)) {
      audio::AlignedLabel label{t.id, 0, t.begin, t.end, 0};
      for (int64_t i = t.begin; i < t.end; ++i) {
        label.log_prob += logits[i * classes + t.id] - normaliser[i];
      }
      label.log_prob /= static_cast<double>(t.end - t.begin);
      out.tokens.push_back(label);
    }
    return out;
  };
}

FrameDecoder frame_decoder(const Decoder& decoder, bool is_ctc, const audio::Vocab& vocab) {
  if (decoder.greedy() && is_ctc) return greedy_decoder(vocab);
  return [&decoder](const float* logits, int64_t frames, const audio::BeamContext& context) {
    const std::vector<audio::Hypothesis> found = decoder.decode(logits, frames, context);
    Heard out;
    out.has_words = decoder.has_words();
    out.complete = found[0].complete;
    const audio::Hypothesis& best = found[0];
    for (size_t i = 0; i < best.tokens.size(); ++i) {
      const audio::Token& t = best.tokens[i];
      out.tokens.push_back({t.id, 0, t.begin, t.end, std::log(best.token_confidence.at(i))});
    }
    out.words = best.words;
    for (size_t i = 1; i < found.size(); ++i) out.others.push_back(decoder.text(found[i]));
    return out;
  };
}

void validate(const WindowOptions& o) {
  CENTROID_CHECK(std::isfinite(o.window) && o.window >= 0 && o.window < 1e6,
                 "window: expected seconds (0: one pass), got ", o.window);
  CENTROID_CHECK(o.window == 0 || (o.overlap >= 0 && o.overlap <= 0.5 * o.window),
                 "overlap: expected 0 to ", 0.5 * o.window, " s, half of the window, got ",
                 o.overlap);
}

int64_t seam(const float* first, const float* second, int64_t frames, int64_t classes,
             int32_t blank) {
  const int64_t quarter = frames / 4, end = frames - quarter;
  const auto is_blank = [&](const float* rows, int64_t t) {
    const float* row = rows + t * classes;
    return std::max_element(row, row + classes) - row == blank;
  };
  const auto blankness = [&](int64_t t) {
    const float *a = first + t * classes, *b = second + t * classes;
    return a[blank] - audio::log_normaliser(a, classes, t) + b[blank] -
           audio::log_normaliser(b, classes, t);
  };
  int64_t run = 0, longest = 0, at = frames / 2, likeliest = frames / 2;
  double best = -INFINITY;
  const auto distance = [&](int64_t t) { return std::abs(2 * t - frames); };
  for (int64_t t = quarter; t < end; ++t) {
    run = is_blank(first, t) && is_blank(second, t) ? run + 1 : 0;
    const int64_t middle = t + 1 - (run + 1) / 2;
    if (run > longest || (run > 0 && run == longest && distance(middle) < distance(at))) {
      longest = run;
      at = middle;
    }
    const double value = blankness(t);
    if (value > best || (value == best && distance(t) < distance(likeliest))) {
      best = value;
      likeliest = t;
    }
  }
  return longest > 0 ? at : likeliest;
}

Transcript transcribe(TrainedRecognizer& recognizer, const std::string& path, int raw_rate,
                      const WindowOptions& options, const FrameDecoder& decoder) {
  validate(options);
  NoGrad no_grad;
  return Transcriber(recognizer, path, raw_rate, options, decoder).run();
}

}  // namespace centroid::asr
