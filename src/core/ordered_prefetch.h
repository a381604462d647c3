#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace uvit {

/// Results number 0, 1, 2, ... made ahead by threads of its own and handed out in that order: which thread made one leaves no trace.
template <class T>
class OrderedPrefetch {
 public:
  struct Options {
    std::int64_t threads = 1;  ///< from 1 on
    std::int64_t ahead = 1;    ///< results, from 1 on, that are made or wait beyond those handed out
    std::int64_t count = std::numeric_limits<std::int64_t>::max();  ///< results in all
    std::function<void()> start_thread = {};                        ///< called first in each thread
  };
  /// What `make` left, complete or up to what it threw.
  struct Result {
    T value;
    std::exception_ptr error;
  };

  /// @param make fills result `number`; called by several threads at a time
  OrderedPrefetch(std::function<void(std::int64_t number, T& result)> make, Options options) : make_(std::move(make)), options_(std::move(options)) {
    for (std::int64_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~OrderedPrefetch() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedPrefetch(const OrderedPrefetch&) = delete;
  OrderedPrefetch& operator=(const OrderedPrefetch&) = delete;

  /// The next result, when it is there; it stays the next one until pop(). One caller at a time, and not beyond `count`.
  Result& front() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return done_.contains(given_); });
    return done_.at(given_);
  }
  void pop() {
    {
      const std::lock_guard lock(mutex_);
      done_.erase(given_++);
    }
    room_.notify_all();
  }

 private:
  void work() {
    if (options_.start_thread) options_.start_thread();
    std::unique_lock lock(mutex_);
    while (true) {
      room_.wait(lock, [this] { return stop_ || taken_ >= options_.count || taken_ < given_ + options_.ahead; });
      if (stop_ || taken_ >= options_.count) return;
      const std::int64_t number = taken_++;
      lock.unlock();
      Result result;
      try {
        make_(number, result.value);
      } catch (...) {
        result.error = std::current_exception();
      }
      lock.lock();
      done_.emplace(number, std::move(result));
      ready_.notify_all();
    }
  }

  const std::function<void(std::int64_t, T&)> make_;
  const Options options_;
  std::mutex mutex_;  // guards all below but the threads
  std::condition_variable room_, ready_;
  bool stop_ = false;
  std::int64_t taken_ = 0, given_ = 0;
  std::map<std::int64_t, Result> done_;
  std::vector<std::thread> threads_;
};

}  // namespace uvit
