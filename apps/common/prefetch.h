#pragma once
// Work done ahead of time by several threads and handed out in order.
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace centroid::apps {

/// Calls `plan` for one job after the other, in order and never twice at once, and `make` for the
/// jobs on several threads, at most `depth` results ahead. `next` hands the results out in the
/// order of the jobs, whatever the number of threads: they depend on it no more than `make` does.
/// `make` must not use parallel_for.
template <typename Job, typename T>
class OrderedPrefetch {
 public:
  OrderedPrefetch(std::function<Job()> plan, std::function<T(const Job&)> make, int workers,
                  int64_t depth)
      : plan_(std::move(plan)), make_(std::move(make)), depth_(depth < 1 ? 1 : depth) {
    for (int i = 0; i < (workers < 1 ? 1 : workers); ++i) {
      threads_.emplace_back([this] { run(); });
    }
  }

  /// Waits for the calls that are under way; what was made ahead is dropped.
  ~OrderedPrefetch() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedPrefetch(const OrderedPrefetch&) = delete;
  OrderedPrefetch& operator=(const OrderedPrefetch&) = delete;

  /// The next result; waits for it. An exception of `plan` or `make` is thrown where its result
  /// would have been, and from then on always.
  T next() {
    const auto begin = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ready_.contains(taken_); });
    waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const auto found = ready_.find(taken_);
    if (found->second.error) std::rethrow_exception(found->second.error);
    T value = std::move(found->second.value);
    ready_.erase(found);
    ++taken_;
    changed_.notify_all();
    return value;
  }

  /// Seconds that `next` has waited in all.
  double waited() const { return waited_; }

 private:
  struct Result {
    T value{};
    std::exception_ptr error;
  };

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || (planned_ < taken_ + depth_ && !failed_); });
      if (stop_) return;
      const int64_t number = planned_++;
      Result result;
      try {
        const Job job = plan_();
        lock.unlock();
        result.value = make_(job);
        lock.lock();
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        result.error = std::current_exception();
        failed_ = true;
      }
      ready_.emplace(number, std::move(result));
      changed_.notify_all();
    }
  }

  std::function<Job()> plan_;
  std::function<T(const Job&)> make_;
  int64_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, Result> ready_;
  int64_t planned_ = 0, taken_ = 0;
  bool stop_ = false, failed_ = false;
  double waited_ = 0;
  std::vector<std::thread> threads_;  // last: they use what is above
};

}  // namespace centroid::apps
