#include "worker/engine/epoch_operation.h"

namespace muster {

const char* EpochCommandName(EpochCommand command) {
  switch (command) {
    case EpochCommand::kLoad:
      return "load";
    case EpochCommand::kWarmup:
      return "warmup";
    case EpochCommand::kCapture:
      return "capture";
    case EpochCommand::kActivate:
      return "activate";
    case EpochCommand::kDrain:
      return "drain";
    case EpochCommand::kRelease:
      return "release";
  }
  return "?";
}

void EpochOperation::Watch(EpochWatcher watcher) {
  absl::MutexLock lock(&mu_);
  if (result_.has_value()) return watcher.on_done(*result_);
  if (progress_.has_value()) watcher.on_progress(*progress_);
  watchers_.push_back(std::move(watcher));
}

void EpochOperation::Report(const Progress& progress) {
  absl::MutexLock lock(&mu_);
  progress_ = progress;
  for (const EpochWatcher& watcher : watchers_) watcher.on_progress(progress);
}

void EpochOperation::Finish(absl::StatusOr<EpochOutcome> result) {
  absl::MutexLock lock(&mu_);
  result_ = std::move(result);
  for (const EpochWatcher& watcher : watchers_) watcher.on_done(*result_);
  watchers_.clear();
}

}  // namespace muster
