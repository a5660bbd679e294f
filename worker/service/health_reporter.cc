#include "worker/service/health_reporter.h"

#include <grpcpp/health_check_service_interface.h>

namespace muster {

void HealthReporter::Attach(grpc::HealthCheckServiceInterface* service) {
  absl::MutexLock lock(&mu_);
  service_ = service;
  Report();
}

void HealthReporter::EpochActivated(ReplicaIndex replica, Epoch epoch) {
  absl::MutexLock lock(&mu_);
  active_.insert({replica, epoch});
  Report();
}

void HealthReporter::EpochEnded(ReplicaIndex replica, Epoch epoch) {
  absl::MutexLock lock(&mu_);
  active_.erase({replica, epoch});
  Report();
}

void HealthReporter::Report() {
  if (service_ == nullptr) return;
  for (const char* name : {"", "muster.v1.Inference"}) {
    service_->SetServingStatus(name, !active_.empty());
  }
}

}  // namespace muster
