#ifndef MUSTER_BASE_TLS_NEWS_H_
#define MUSTER_BASE_TLS_NEWS_H_

#include <memory>
#include <optional>
#include <string>

#include "base/ticker.h"
#include "base/tls_identity.h"

namespace muster {

// What an operator should hear of the files of --tls while a daemon runs. gRPC takes what it finds,
// and says nothing: with files that do not fit together, every new connection fails.
class TlsNews {
 public:
  // They are of use now, and are those of `identity`.
  TlsNews(std::string directory, TlsIdentity identity);

  // Reads the files. One line where something is different from the last time: they are of no use
  // any more, and why; they are of use again; they are somebody else's.
  std::optional<std::string> Look();

 private:
  const std::string directory_;
  const TlsIdentity identity_;
  std::string complaint_;  // empty while there is none
};

// Logs them as warnings, every few seconds for as long as the result lives.
std::unique_ptr<Ticker> LogTlsNews(const std::string& directory, const TlsIdentity& identity);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_NEWS_H_
