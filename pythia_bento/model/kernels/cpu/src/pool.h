// A pool of threads for parallel loops of a few microseconds each.
//
// Workers spin for a short while after each loop, because the next one comes within microseconds
// while a forward pass runs, and sleep when it does not. Tasks are handed out one by one: which
// thread runs which task never changes a result. A loop waits for the workers that took one of its
// tasks and for no other: one whose core is busy with something else delays nobody.
//
// Threads are the system's own, so that nothing of a C++ library has to be linked (runtime.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include <pthread.h>
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
    const auto begin = [](void* pool) -> void* {
      static_cast<Pool*>(pool)->work();
      return nullptr;
    };
    workers_.resize(threads > 1 ? threads - 1 : 0);
    for (auto& worker : workers_)
      if (pthread_create(&worker, nullptr, begin, this)) abort();
  }

  ~Pool() {
    stop_ = true;
    announce();
    for (auto& worker : workers_) pthread_join(worker, nullptr);
    pthread_cond_destroy(&wake_);
    pthread_mutex_destroy(&mutex_);
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
    done_.store(0, std::memory_order_relaxed);
    tickets_.store(static_cast<uint64_t>(tasks) << 32, std::memory_order_release);
    announce();
    drain();
    for (int spins = 0; done_.load(std::memory_order_acquire) != tasks; spins++)
      spins < 20000 ? relax() : (void)sched_yield();
  }

 private:
  void announce() {
    loop_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    pthread_mutex_lock(&mutex_);
    pthread_cond_broadcast(&wake_);
    pthread_mutex_unlock(&mutex_);
  }

  // Whoever holds a ticket below the number of tasks keeps its loop open: what the loop consists of
  // is written only while there is no such ticket. A worker that comes late gets one too high.
  void drain() {
    int done = 0;
    for (;; done++) {
      uint64_t ticket = tickets_.fetch_add(1, std::memory_order_acq_rel);
      uint32_t task = static_cast<uint32_t>(ticket);
      if (task >= ticket >> 32) break;
      call_(body_, static_cast<int>(task));
    }
    if (done) done_.fetch_add(done, std::memory_order_acq_rel);
  }

  // Returns the number of the loop that is open or was opened last, once that is not `seen`.
  unsigned await(unsigned seen) {
    unsigned now;
    for (int spins = 0; spins < 4000; spins++) {
      if ((now = loop_.load(std::memory_order_acquire)) != seen) return now;
      relax();
    }
    pthread_mutex_lock(&mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while ((now = loop_.load(std::memory_order_seq_cst)) == seen) pthread_cond_wait(&wake_, &mutex_);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    pthread_mutex_unlock(&mutex_);
    return now;
  }

  void work() {
    for (unsigned seen = 0;;) {
      seen = await(seen);
      if (stop_) return;
      drain();
    }
  }

  std::vector<pthread_t> workers_;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  std::atomic<unsigned> loop_{0};
  std::atomic<int> sleepers_{0}, done_{0};
  std::atomic<uint64_t> tickets_{0};  // upper half: tasks of the loop; lower half: the next of them
  std::atomic<bool> stop_{false};
  const void* body_ = nullptr;
  void (*call_)(const void*, int) = nullptr;
};

}  // namespace pythia
