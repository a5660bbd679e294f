#include "base/tls_access.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/muster/v1/fleet.pb.h"
#include "proto/muster/v1/inference.pb.h"
#include "proto/muster/v1/membership.pb.h"
#include "proto/muster/v1/rendezvous.pb.h"
#include "proto/muster/v1/trace.pb.h"
#include "proto/muster/v1/worker_control.pb.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kDenied = absl::StatusCode::kPermissionDenied;

TlsIdentity Holder(TlsRole role) { return {"lab", role, "x"}; }

// "muster.v1.Fleet GetTopology".
std::set<std::string> MethodsOfTheContract() {
  std::set<std::string> methods;
  for (const auto* file :
       {v1::EnlistRequest::descriptor()->file(), v1::AllGatherRequest::descriptor()->file(),
        v1::GetTopologyRequest::descriptor()->file(), v1::AssignRequest::descriptor()->file(),
        v1::ForwardRequest::descriptor()->file(), v1::CollectRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const auto* service = file->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        methods.insert(absl::StrCat(service->full_name(), " ", service->method(j)->name()));
      }
    }
  }
  return methods;
}

TEST(Access, IsSaidOfEveryMethodOfTheContractAndOfNoOther) {
  std::set<std::string> in_table;
  for (const MethodAccess& entry : AccessTable()) {
    if (!absl::StartsWith(entry.service, "muster.v1.")) continue;
    EXPECT_TRUE(in_table.insert(absl::StrCat(entry.service, " ", entry.method)).second)
        << entry.method << " stands twice";
  }
  EXPECT_GE(in_table.size(), 33u);
  EXPECT_EQ(in_table, MethodsOfTheContract());
}

TEST(Access, StandsInTheDocumentAsInTheCode) {
  std::vector<std::string> documented;
  std::ifstream document("docs/security.md");
  ASSERT_TRUE(document) << "docs/security.md cannot be read";
  for (std::string line; std::getline(document, line);) {
    if (absl::StartsWith(line, "| `muster.v1.") || absl::StartsWith(line, "| `grpc.")) {
      documented.push_back(line);
    }
  }
  std::vector<std::string> in_code;
  for (const MethodAccess& entry : AccessTable()) {
    in_code.push_back(absl::StrCat("| `", entry.service, "` | `", entry.method, "` | ",
                                   entry.roles.Names(), " |"));
  }
  EXPECT_EQ(documented, in_code);
}

TEST(Access, IsByRole) {
  EXPECT_OK(CheckAccess("/muster.v1.Membership/Enlist", Holder(TlsRole::kWorker)));
  EXPECT_OK(CheckAccess("/muster.v1.WorkerControl/Assign", Holder(TlsRole::kCoordinator)));
  EXPECT_OK(CheckAccess("/muster.v1.Inference/Forward", Holder(TlsRole::kScheduler)));
  EXPECT_OK(CheckAccess("/muster.v1.Fleet/DrainWorker", Holder(TlsRole::kOperator)));
  for (const TlsRole role :
       {TlsRole::kWorker, TlsRole::kScheduler, TlsRole::kOperator, TlsRole::kCoordinator}) {
    EXPECT_OK(CheckAccess("/grpc.health.v1.Health/Watch", Holder(role)));
  }
}

TEST(Access, RefusesWithTheCallerTheMethodAndThoseWhoMay) {
  EXPECT_STATUS(
      CheckAccess("/muster.v1.WorkerControl/Assign", Holder(TlsRole::kScheduler)), kDenied,
      "scheduler/x may not call muster.v1.WorkerControl.Assign; certificates that may are "
      "those of: coordinator");
  EXPECT_STATUS(CheckAccess("/muster.v1.Fleet/GetTopology", Holder(TlsRole::kWorker)), kDenied,
                "those of: scheduler, operator");
  EXPECT_STATUS(CheckAccess("/muster.v1.Fleet/ApplyTopology", Holder(TlsRole::kScheduler)), kDenied,
                "those of: operator");
  EXPECT_STATUS(CheckAccess("/muster.v1.Inference/Forward", Holder(TlsRole::kWorker)), kDenied,
                "those of: scheduler, operator");
  EXPECT_STATUS(CheckAccess("/muster.v1.Membership/Enlist", Holder(TlsRole::kOperator)), kDenied,
                "those of: worker");
}

TEST(Access, IsNobodysWhereTheTableIsSilent) {
  for (const std::string path :
       {"", "/", "/muster.v1.Fleet/", "/muster.v1.Fleet", "muster.v1.Fleet/GetTopology",
        "/muster.v1.Fleet/GetTopology/", "/muster.v1.Fleet/gettopology", "//GetTopology",
        "/muster.v1.Fleet/NoSuchMethod", "/muster.v2.Fleet/GetTopology"}) {
    EXPECT_STATUS(CheckAccess(path, Holder(TlsRole::kOperator)), kDenied, "nobody may") << path;
  }
}

}  // namespace
}  // namespace muster
