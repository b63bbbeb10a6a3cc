#pragma once
// The data pipeline: which items form which batch, and making batches ahead of time.
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::nn {

using Batch = std::vector<int64_t>;  ///< indices of items

/// How items are grouped.
struct BatchOptions {
  int64_t max_items = 16;  ///< per batch
  int64_t max_frames = 0;  ///< padded frames per batch (items * longest); 0 = no limit
  int64_t buckets = 10;    ///< items of similar length are batched together; 1 = none
  bool shuffle = true;     ///< order of batches and of the items of a bucket
};

/// Batches of one epoch: a function of (lengths, options, seed, epoch) only, so that training can
/// continue at any position. Every item appears exactly once. Without `shuffle`, batches are in
/// order of their buckets (of the items, for one bucket). Throws for an item longer than
/// `max_frames`, naming it, and for items of length 0.
std::vector<Batch> epoch_batches(const std::vector<int64_t>& lengths, const BatchOptions& options,
                                 uint64_t seed, int64_t epoch);

/// An endless walk over epochs that can be put anywhere: position = number of batches taken so far.
class BatchSampler {
 public:
  /// Throws like `epoch_batches`, and when there are no items.
  BatchSampler(std::vector<int64_t> lengths, const BatchOptions& options, uint64_t seed);
  /// A batch and where it stands.
  struct Item {
    Batch batch;
    int64_t epoch = 0;
    int64_t position = 0;  ///< of this batch
  };
  /// The batch at `position`, which then moves on by one.
  Item next();
  /// Batches taken so far.
  int64_t position() const { return position_; }
  /// Goes to `position` >= 0 as if so many batches had been taken. With a limit on frames the
  /// number of batches differs between epochs, so all epochs before it are formed again.
  void seek(int64_t position);
  /// Batches of epoch `epoch`.
  int64_t batches_in(int64_t epoch) const;

 private:
  void enter(int64_t epoch, int64_t begin);

  std::vector<int64_t> lengths_;
  BatchOptions options_;
  uint64_t seed_;
  int64_t position_ = 0, epoch_ = -1, epoch_begin_ = 0;
  std::vector<Batch> batches_;
};

/// Calls `make` on one background thread, at most `depth` results ahead, and hands them out in
/// order. An exception of `make` is rethrown by `next`. `make` must not use parallel_for.
template <typename T>
class Prefetch {
 public:
  Prefetch(std::function<T()> make, size_t depth);
  /// Waits for a call of `make` that is under way; what was made ahead is dropped.
  ~Prefetch();
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;
  /// The next result; waits for it. After the last result before an exception, always throws it.
  T next();

 private:
  void run();

  std::function<T()> make_;
  size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

template <typename T>
Prefetch<T>::Prefetch(std::function<T()> make, size_t depth)
    : make_(std::move(make)), depth_(depth < 1 ? 1 : depth), thread_([this] { run(); }) {}

template <typename T>
Prefetch<T>::~Prefetch() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

template <typename T>
T Prefetch<T>::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || error_; });
  if (ready_.empty()) std::rethrow_exception(error_);
  T item = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return item;
}

template <typename T>
void Prefetch<T>::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ready_.size() < depth_ || stop_; });
      if (stop_) return;
    }
    try {
      T item = make_();
      std::lock_guard lock(mutex_);
      ready_.push_back(std::move(item));
    } catch (...) {
      std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    changed_.notify_all();
    std::lock_guard lock(mutex_);
    if (error_) return;
  }
}

}  // namespace centroid::nn
