#include "tests/conformance/backend.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace muster::testing {
namespace {

struct Registered {
  RanksAs as;
  MakeRankBackend make;
  int most_ranks;
};

// Filled before main, then only read.
std::map<std::string, Registered>& Backends() {
  static auto& backends = *new std::map<std::string, Registered>;
  return backends;
}

const Registered& Find(absl::string_view name) {
  const auto found = Backends().find(std::string(name));
  if (found == Backends().end()) {
    std::fprintf(stderr, "no backend '%s'\n", std::string(name).c_str());
    std::abort();
  }
  return found->second;
}

}  // namespace

ConformanceBackend::ConformanceBackend(absl::string_view name, RanksAs as, MakeRankBackend make,
                                       int most_ranks) {
  Backends().emplace(std::string(name), Registered{as, std::move(make), most_ranks});
}

std::string Variant::Name() const {
  return absl::StrCat(backend, as == RanksAs::kThreads ? "Threads" : "Processes",
                      mode == RunMode::kStream ? "Stream" : "Graph");
}

std::vector<Variant> AllVariants() {
  std::vector<Variant> variants;
  for (const auto& [name, backend] : Backends()) {
    for (RunMode mode : {RunMode::kStream, RunMode::kGraph}) {
      variants.push_back({name, backend.as, mode});
    }
  }
  return variants;
}

std::vector<Variant> VariantsAs(RanksAs as) {
  std::vector<Variant> variants = AllVariants();
  std::erase_if(variants, [as](const Variant& variant) { return variant.as != as; });
  return variants;
}

const MakeRankBackend& FindBackend(absl::string_view name) { return Find(name).make; }

int MostRanksOf(absl::string_view name) { return Find(name).most_ranks; }

}  // namespace muster::testing
