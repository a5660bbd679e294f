// EpochContext from ASSIGNED to WARM.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "worker/device/byte_size.h"
#include "worker/engine/epoch_context.h"
#include "worker/model/registry.h"

namespace muster {

absl::Status EpochContext::Load() {
  return RunPhase(WorkerState::kAssigned, WorkerState::kLoaded, [this]() -> absl::Status {
    EnterPhase("load");
    StandBack();
    if (leads()) assignment_.backend.copier().Bandwidth();
    const std::shared_ptr<Handover> former = this->former();
    if (former == nullptr) return LoadWeights(nullptr);
    return former->Use([&] { return LoadWeights(former->estate().loaded); });
  });
}

absl::Status EpochContext::LoadWeights(const LoadedModel* previous) {
  const absl::Time begun = Clock::Real().Now();
  MUSTER_ASSIGN_OR_RETURN(loaded_, LoadModel({.config = model().config,
                                              .checkpoint = *model().checkpoint,
                                              .shape = shape_,
                                              .dtype = model().dtype,
                                              .device = assignment_.backend.device(),
                                              .ledger = ledger_,
                                              .progress =
                                                  [this](uint64_t done, uint64_t total) {
                                                    SetProgress({"load", done, total, "bytes"});
                                                    return failure();
                                                  },
                                              .previous = previous}));
  const uint64_t read = loaded_->weights().bytes() - loaded_->shared_weight_bytes();
  const double seconds = absl::ToDoubleSeconds(Clock::Real().Now() - begun);
  log_.Info("loaded ", ByteSizeString(read), " of weights",
            absl::StrFormat(" in %.2f s, %.2f GB/s", seconds, read * 1e-9 / seconds));
  return absl::OkStatus();
}

absl::Status EpochContext::Warmup(absl::Duration timeout) {
  const absl::Time deadline = Clock::Real().Now() + timeout;
  deadline_ = deadline;
  return RunPhase(WorkerState::kLoaded, WorkerState::kWarm, [&]() -> absl::Status {
    MUSTER_RETURN_IF_ERROR(collectives_->Warmup(Uses(), timeout));
    return OpenRelay(deadline);
  });
}

std::vector<CollectiveUse> EpochContext::Uses() const {
  std::vector<CollectiveUse> uses = loaded_->collectives(options_.limits);
  uses.push_back(Sampler::GatherUse(
      {.max_outputs = options_.limits.max_outputs, .vocabulary = model().spec.vocabulary},
      stage().size()));
  return uses;
}

// The leader makes the ring, all others open it; then nobody else can.
absl::Status EpochContext::OpenRelay(absl::Time deadline) {
  if (stage().size() == 1) return absl::OkStatus();
  EnterPhase("warmup/relay");
  std::unique_ptr<StepRing> ring;
  if (leads()) {
    auto made = OpenRing("");
    if (!made.ok()) return FailOthers(made.status());
    ring = *std::move(made);
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> handles,
                          Gather("warmup/relay", ring != nullptr ? ring->Handle() : "", deadline));
  if (!leads()) {
    auto opened = OpenRing(handles[0]);
    if (!opened.ok()) return FailOthers(opened.status());
    ring = *std::move(opened);
  }
  MUSTER_RETURN_IF_ERROR(Gather("warmup/relay-opened", "", deadline).status());
  ring->StopExporting();
  absl::MutexLock lock(&mu_);
  ring_ = std::move(ring);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StepRing>> EpochContext::OpenRing(absl::string_view handle) {
  StepRingBackend& rings = assignment_.backend.rings();
  if (leads()) {
    return rings.Create(
        {.followers = stage().size() - 1, .message_bytes = MaxStepBytes(options_.limits)}, ledger_);
  }
  return rings.Open(handle, stage().rank().value() - 1);
}

}  // namespace muster
