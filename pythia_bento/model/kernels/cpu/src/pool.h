// A pool of threads for parallel loops of a few microseconds each.
//
// Workers spin for a short while after each loop, because the next one comes within microseconds
// while a forward pass runs, and sleep when it does not. Tasks are handed out one by one: which
// thread runs which task never changes a result.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <sched.h>

namespace pythia {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    stop_ = true;
    announce();
    for (auto& worker : workers_) worker.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(task) for every task in [0, tasks); returns when all are done. The caller helps.
  template <class Body>
  void run(int tasks, const Body& body) {
    if (workers_.empty() || tasks <= 1) {
      for (int task = 0; task < tasks; task++) body(task);
      return;
    }
    call_ = [](const void* b, int task) { (*static_cast<const Body*>(b))(task); };
    body_ = &body;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    announce();
    drain();
    for (int spins = 0; busy_.load(std::memory_order_acquire) != 0; spins++)
      spins < 20000 ? relax() : (void)sched_yield();
  }

 private:
  void announce() {
    loop_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }

  void drain() {
    for (int task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;)
      call_(body_, task);
  }

  void await(unsigned seen) {
    for (int spins = 0; spins < 4000; spins++) {
      if (loop_.load(std::memory_order_acquire) != seen) return;
      relax();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return loop_.load(std::memory_order_seq_cst) != seen; });
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

  void work() {
    for (unsigned seen = 0;;) {
      await(seen);
      // Every worker takes part in every loop, so the counter moved by exactly one.
      seen++;
      if (stop_) return;
      drain();
      busy_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> loop_{0};
  std::atomic<int> sleepers_{0}, next_{0}, busy_{0};
  std::atomic<bool> stop_{false};
  int tasks_ = 0;
  const void* body_ = nullptr;
  void (*call_)(const void*, int) = nullptr;
};

}  // namespace pythia
