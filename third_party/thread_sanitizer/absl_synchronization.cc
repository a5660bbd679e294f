// Tells ThreadSanitizer what Abseil's Mutex, CondVar, Notification and BlockingCounter do.
//
// A distribution's Abseil is compiled without ThreadSanitizer, which therefore sees none of its
// locks and calls everything under them a race. Linked with --wrap (see BUILD.bazel), the calls
// that our code makes come here first, are announced as Abseil's own instrumented build would
// announce them, and go on to the real function. Between `pre` and `post` ThreadSanitizer ignores
// memory accesses: there Abseil evaluates Conditions, which it may do for another thread.

#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

using absl::BlockingCounter;
using absl::Condition;
using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Notification;
using absl::Time;

namespace {

constexpr unsigned kWrite = 0;
constexpr unsigned kRead = __tsan_mutex_read_lock;

class Locking {
 public:
  Locking(Mutex* mu, unsigned mode) : mu_(mu), mode_(mode) { __tsan_mutex_pre_lock(mu_, mode_); }
  ~Locking() { __tsan_mutex_post_lock(mu_, mode_, 0); }

 private:
  Mutex* const mu_;
  const unsigned mode_;
};

class Unlocking {
 public:
  Unlocking(Mutex* mu, unsigned mode) : mu_(mu), mode_(mode) {
    __tsan_mutex_pre_unlock(mu_, mode_);
  }
  ~Unlocking() { __tsan_mutex_post_unlock(mu_, mode_); }

 private:
  Mutex* const mu_;
  const unsigned mode_;
};

// A wait that gives the lock up and takes it again.
class Waiting {
 public:
  explicit Waiting(Mutex* mu) : released_(Release(mu)), locking_(mu, kWrite) {}

 private:
  static bool Release(Mutex* mu) {
    Unlocking unlocking(mu, kWrite);
    return true;
  }

  const bool released_;
  const Locking locking_;
};

class Acquiring {
 public:
  explicit Acquiring(const void* address) : address_(const_cast<void*>(address)) {}
  ~Acquiring() { __tsan_acquire(address_); }

 private:
  void* const address_;
};

bool Try(Mutex* mu, unsigned mode, bool (*real)(Mutex*)) {
  __tsan_mutex_pre_lock(mu, mode | __tsan_mutex_try_lock);
  const bool locked = real(mu);
  const unsigned outcome =
      locked ? __tsan_mutex_try_lock : __tsan_mutex_try_lock_failed | __tsan_mutex_try_lock;
  __tsan_mutex_post_lock(mu, mode | outcome, 0);
  return locked;
}

}  // namespace

// WRAP(result, mangled name, (parameters), (arguments), announcement)
#define WRAP(result, name, parameters, arguments, announcement) \
  extern "C" result __real__ZN4absl7debian3##name parameters;   \
  extern "C" result __wrap__ZN4absl7debian3##name parameters {  \
    announcement;                                               \
    return __real__ZN4absl7debian3##name arguments;             \
  }

#define WRAP_TRY(name, mode)                                 \
  extern "C" bool __real__ZN4absl7debian3##name(Mutex*);     \
  extern "C" bool __wrap__ZN4absl7debian3##name(Mutex* mu) { \
    return Try(mu, mode, &__real__ZN4absl7debian3##name);    \
  }

WRAP(void, 5Mutex4LockEv, (Mutex * mu), (mu), Locking locking(mu, kWrite))
WRAP(void, 5Mutex10ReaderLockEv, (Mutex * mu), (mu), Locking locking(mu, kRead))
WRAP(void, 5Mutex6UnlockEv, (Mutex * mu), (mu), Unlocking unlocking(mu, kWrite))
WRAP(void, 5Mutex12ReaderUnlockEv, (Mutex * mu), (mu), Unlocking unlocking(mu, kRead))
WRAP(void, 5MutexD1Ev, (Mutex * mu), (mu), __tsan_mutex_destroy(mu, 0))
WRAP_TRY(5Mutex7TryLockEv, kWrite)
WRAP_TRY(5Mutex13ReaderTryLockEv, kRead)

WRAP(void, 5Mutex8LockWhenERKNS0_9ConditionE, (Mutex * mu, const Condition& condition),
     (mu, condition), Locking locking(mu, kWrite))
WRAP(bool, 5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE,
     (Mutex * mu, const Condition& condition, Time deadline), (mu, condition, deadline),
     Locking locking(mu, kWrite))
WRAP(bool, 5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE,
     (Mutex * mu, const Condition& condition, Duration timeout), (mu, condition, timeout),
     Locking locking(mu, kWrite))

WRAP(void, 5Mutex5AwaitERKNS0_9ConditionE, (Mutex * mu, const Condition& condition),
     (mu, condition), Waiting waiting(mu))
WRAP(bool, 5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE,
     (Mutex * mu, const Condition& condition, Time deadline), (mu, condition, deadline),
     Waiting waiting(mu))
WRAP(bool, 5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE,
     (Mutex * mu, const Condition& condition, Duration timeout), (mu, condition, timeout),
     Waiting waiting(mu))

WRAP(void, 7CondVar4WaitEPNS0_5MutexE, (CondVar * cv, Mutex* mu), (cv, mu), Waiting waiting(mu))
WRAP(bool, 7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE,
     (CondVar * cv, Mutex* mu, Time deadline), (cv, mu, deadline), Waiting waiting(mu))
WRAP(bool, 7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE,
     (CondVar * cv, Mutex* mu, Duration timeout), (cv, mu, timeout), Waiting waiting(mu))

// A ReleasableMutexLock is one pointer to its Mutex, which its Release() unlocks inside the
// library.
WRAP(void, 19ReleasableMutexLock7ReleaseEv, (Mutex * *lock), (lock),
     Unlocking unlocking(*lock, kWrite))

// These answer from an atomic variable alone when they can, so the lock inside does not order
// everything.
WRAP(void, 12Notification6NotifyEv, (Notification * note), (note), __tsan_release(note))
WRAP(bool, 15BlockingCounter14DecrementCountEv, (BlockingCounter * counter), (counter),
     __tsan_release(counter))
WRAP(void, 15BlockingCounter4WaitEv, (BlockingCounter * counter), (counter),
     Acquiring acquiring(counter))

#define WRAP_CONST(result, name, parameters, arguments, announcement) \
  extern "C" result __real__ZNK4absl7debian3##name parameters;        \
  extern "C" result __wrap__ZNK4absl7debian3##name parameters {       \
    announcement;                                                     \
    return __real__ZNK4absl7debian3##name arguments;                  \
  }

WRAP_CONST(void, 12Notification19WaitForNotificationEv, (const Notification* note), (note),
           Acquiring acquiring(note))
WRAP_CONST(bool, 12Notification30WaitForNotificationWithTimeoutENS0_8DurationE,
           (const Notification* note, Duration timeout), (note, timeout), Acquiring acquiring(note))
WRAP_CONST(bool, 12Notification31WaitForNotificationWithDeadlineENS0_4TimeE,
           (const Notification* note, Time deadline), (note, deadline), Acquiring acquiring(note))
