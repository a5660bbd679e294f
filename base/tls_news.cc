#include "base/tls_news.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/tls_files.h"

namespace muster {
namespace {

constexpr absl::Duration kPeriod = absl::Seconds(3);

// Empty when there is nothing to complain of.
std::string Complaint(const std::string& directory, const TlsIdentity& identity) {
  const auto found = ReadTlsFiles(directory);
  if (!found.ok()) {
    return absl::StrCat("new connections fail: ", found.status().message(),
                        "; those that are there go on");
  }
  if (*found == identity) return "";
  return absl::StrCat("the certificate in ", directory, " is that of ", found->ToUri(),
                      " now, and this process is ", identity.ToUri(),
                      ": others will refuse it; put the right one there, or start it anew");
}

}  // namespace

TlsNews::TlsNews(std::string directory, TlsIdentity identity)
    : directory_(std::move(directory)), identity_(std::move(identity)) {}

std::optional<std::string> TlsNews::Look() {
  std::string complaint = Complaint(directory_, identity_);
  if (complaint == complaint_) return std::nullopt;
  complaint_ = std::move(complaint);
  return complaint_.empty() ? absl::StrCat("the files in ", directory_, " are of use again")
                            : complaint_;
}

std::unique_ptr<Ticker> LogTlsNews(const std::string& directory, const TlsIdentity& identity) {
  return std::make_unique<Ticker>(kPeriod, [news = TlsNews(directory, identity)]() mutable {
    if (const auto line = news.Look()) Logger().Warning("TLS: ", *line);
  });
}

}  // namespace muster
