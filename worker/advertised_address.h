#ifndef MUSTER_WORKER_ADVERTISED_ADDRESS_H_
#define MUSTER_WORKER_ADVERTISED_ADDRESS_H_

#include <string>

#include "base/listen_address.h"

namespace muster {

// Where others find what listens on `listen`, as "host:port". For 0.0.0.0 and :: the host is the
// address that this machine reaches `coordinator`, "host:port", from; the machine's name when there
// is no way there.
std::string AdvertisedAddress(const ListenAddress& listen, const std::string& coordinator);

}  // namespace muster

#endif  // MUSTER_WORKER_ADVERTISED_ADDRESS_H_
