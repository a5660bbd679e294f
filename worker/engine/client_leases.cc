#include "worker/engine/client_leases.h"

namespace muster {

void ClientLeases::Renew(const std::string& client, absl::Time now) {
  const auto known = clients_.find(client);
  if (known != clients_.end()) known->second.heard = now;
}

void ClientLeases::Hold(const std::string& client, absl::Time now) {
  const auto [place, is_new] = clients_.try_emplace(client);
  place->second.heard = now;
  ++place->second.holders;
  if (is_new) silent_since_.insert({now, client});
}

void ClientLeases::LetGo(const std::string& client, absl::Time now) {
  const auto known = clients_.find(client);
  if (known == clients_.end()) return;
  known->second.heard = now;
  --known->second.holders;
}

std::vector<std::string> ClientLeases::TakeExpired(absl::Time now) {
  std::vector<std::string> expired;
  while (!silent_since_.empty() && silent_since_.begin()->first + lease_ <= now) {
    std::string name = std::move(silent_since_.extract(silent_since_.begin()).value().second);
    const auto client = clients_.find(name);
    const bool held = client->second.holders > 0;
    if (held || client->second.heard + lease_ > now) {
      silent_since_.insert({held ? now : client->second.heard, std::move(name)});
      continue;
    }
    clients_.erase(client);
    expired.push_back(std::move(name));
  }
  return expired;
}

absl::Time ClientLeases::next_expiry() const {
  return silent_since_.empty() ? absl::InfiniteFuture() : silent_since_.begin()->first + lease_;
}

}  // namespace muster
