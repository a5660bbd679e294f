#include "client/ctl/change_table.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/ctl/operation_text.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

using Role = v1::RankChange::Role;
using Ranks = std::vector<const v1::RankChange*>;

constexpr char kUnchanged[] = "nothing has been changed";
constexpr int kColumns = 80;
constexpr int kLabelWidth = 12;
constexpr int kTextWidth = kColumns - 2 - kLabelWidth;
constexpr size_t kFlowsShown = 24;

uint32_t WorldOf(const v1::ParallelConfig& config) {
  return std::max(1u, config.tp()) * std::max(1u, config.cp()) * std::max(1u, config.pp());
}

// Sizes that stay and are more than 1: "tp=2".
std::string KeptSizes(const v1::ParallelConfig& from, const v1::ParallelConfig& to) {
  std::vector<std::string> sizes;
  const auto add = [&](const char* name, uint32_t before, uint32_t after) {
    if (before == after) sizes.push_back(absl::StrCat(name, "=", after));
  };
  add("tp", from.tp(), to.tp());
  add("cp", from.cp(), to.cp());
  return absl::StrJoin(sizes, " ");
}

std::string Epochs(const v1::ReplicaChange& change) {
  return absl::StrCat(change.from_epoch(), " → ", change.to_epoch());
}

Ranks RanksOf(const v1::ReplicaChange& change, Role role) {
  Ranks ranks;
  for (const auto& rank : change.ranks()) {
    if (rank.role() == role) ranks.push_back(&rank);
  }
  return ranks;
}

std::vector<std::string> NamesOf(const Ranks& ranks) {
  std::vector<std::string> names;
  for (const auto* rank : ranks) names.push_back(rank->worker_id());
  return names;
}

// Words in lines of at most `width` columns.
std::vector<std::string> Fill(const std::vector<std::string>& words, int width,
                              absl::string_view separator) {
  std::vector<std::string> lines;
  for (const std::string& word : words) {
    const int added = static_cast<int>(separator.size()) + DisplayWidth(word);
    if (!lines.empty() && DisplayWidth(lines.back()) + added <= width) {
      absl::StrAppend(&lines.back(), separator, word);
    } else {
      lines.push_back(word);
    }
  }
  return lines;
}

// Facts under labels, line by line.
class Page {
 public:
  void Add(absl::string_view label, absl::string_view text) {
    absl::StrAppend(&text_, "  ", PadRight(label, kLabelWidth), text, "\n");
  }
  void Add(absl::string_view label, const std::vector<std::string>& lines) {
    for (const std::string& line : lines) Add(std::exchange(label, ""), line);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// "135 MiB", or "130 MiB to 135 MiB" where ranks differ.
template <typename Value>
std::string BytesOf(const Ranks& ranks, const Value& value) {
  const auto [low, high] =
      std::minmax_element(ranks.begin(), ranks.end(),
                          [&](const auto* a, const auto* b) { return value(*a) < value(*b); });
  const std::string least = HumanBytes(value(**low)), most = HumanBytes(value(**high));
  return least == most ? most : absl::StrCat(least, " to ", most);
}

void AddWorkers(const v1::ReplicaChange& change, Page& page) {
  const Ranks recruits = RanksOf(change, v1::RankChange::ROLE_RECRUIT);
  const Ranks leavers = RanksOf(change, v1::RankChange::ROLE_LEAVER);
  const Ranks survivors = RanksOf(change, v1::RankChange::ROLE_SURVIVOR);
  if (!recruits.empty()) page.Add("recruits", Fill(NamesOf(recruits), kTextWidth, " "));
  if (!leavers.empty()) page.Add("leavers", Fill(NamesOf(leavers), kTextWidth, " "));
  if (survivors.empty()) return;
  page.Add("survivors", Fill(NamesOf(survivors), kTextWidth, " "));
  const bool leads = survivors.front()->rank() == 0;
  page.Add("", leads ? absl::StrCat("they keep their places; the leader stays ",
                                    survivors.front()->worker_id())
                     : "they keep their places");
}

void AddWeights(const v1::ReplicaChange& change, Page& page) {
  const auto loaded = [](const v1::RankChange& rank) { return rank.weight_bytes_loaded(); };
  const auto shared = [](const v1::RankChange& rank) { return rank.weight_bytes_shared(); };
  absl::string_view label = "weights";
  const Ranks recruits = RanksOf(change, v1::RankChange::ROLE_RECRUIT);
  const Ranks survivors = RanksOf(change, v1::RankChange::ROLE_SURVIVOR);
  if (!recruits.empty()) {
    page.Add(std::exchange(label, ""),
             absl::StrCat(BytesOf(recruits, loaded), " to load per recruit"));
  }
  if (!survivors.empty()) {
    page.Add(label,
             absl::StrCat(BytesOf(survivors, loaded), " to load per survivor, ",
                          BytesOf(survivors, shared), " shared with epoch ", change.from_epoch()));
  }
}

void AddKv(const v1::ReplicaChange& change, Page& page) {
  page.Add("KV", absl::StrCat(Count(change.kv_blocks_moved(), "block"), ", ",
                              HumanBytes(change.kv_bytes_moved()), " to move; ",
                              Count(change.kv_blocks_kept(), "block"), " stay"));
  std::vector<std::string> flows;
  for (const auto& flow : change.flows()) {
    if (flows.size() == kFlowsShown) {
      flows.push_back(
          absl::StrCat("and ", static_cast<size_t>(change.flows_size()) - kFlowsShown, " more"));
      break;
    }
    flows.push_back(
        absl::StrCat(flow.from_rank(), "→", flow.to_rank(), " ", HumanBytes(flow.bytes())));
  }
  page.Add("", Fill(flows, kTextWidth, "   "));
  if (change.tokens_to_rebuild() > 0) {
    page.Add("rebuild", absl::StrCat(Count(change.tokens_to_rebuild(), "token"),
                                     " to compute again: their KV cannot be moved"));
  }
  if (change.lost_count() == 0) return;
  page.Add("lost", absl::StrCat(Count(change.lost_count(), "sequence"),
                                " can be neither moved nor computed again (see --drop):"));
  const auto& lost = change.lost_sequences();
  page.Add("", Fill({lost.begin(), lost.end()}, kTextWidth, "   "));
}

double ShareOf(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// The ranks that come closest to what they have; `part` and `whole` are fields of a rank.
template <typename Part, typename Whole>
Ranks Fullest(const v1::ReplicaChange& change, const Part& part, const Whole& whole) {
  Ranks fullest;
  double most = -1;
  for (const auto& rank : change.ranks()) {
    const double share = ShareOf(part(rank), whole(rank));
    if (whole(rank) == 0 || share < most) continue;
    if (share > most) fullest.clear();
    most = share;
    fullest.push_back(&rank);
  }
  return fullest;
}

// "rank 0", "ranks 0-3"; a leaver is named, since its rank is of the former topology.
std::string Whose(const Ranks& ranks) {
  std::vector<uint32_t> numbers;
  for (const auto* rank : ranks) {
    if (rank->role() == v1::RankChange::ROLE_LEAVER) return NamesOf(ranks).front();
    numbers.push_back(rank->rank());
  }
  std::sort(numbers.begin(), numbers.end());
  return absl::StrCat(numbers.size() == 1 ? "rank " : "ranks ", RankList(numbers));
}

Ranks FullestByBytes(const v1::ReplicaChange& change) {
  return Fullest(
      change, [](const auto& rank) { return rank.peak_bytes(); },
      [](const auto& rank) { return rank.total_bytes(); });
}

void AddPeaks(const v1::ReplicaChange& change, Page& page) {
  if (const Ranks ranks = FullestByBytes(change); !ranks.empty()) {
    page.Add("peak", absl::StrCat(HumanBytes(ranks[0]->peak_bytes()), " of ",
                                  HumanBytes(ranks[0]->total_bytes()), " on ", Whose(ranks),
                                  " while both epochs are held"));
  }
  const Ranks blocks = Fullest(
      change, [](const auto& rank) { return rank.kv_blocks_peak(); },
      [](const auto& rank) { return rank.kv_blocks_total(); });
  if (blocks.empty()) return;
  page.Add("KV peak",
           absl::StrCat(WithCommas(blocks[0]->kv_blocks_peak()), " of ",
                        Count(blocks[0]->kv_blocks_total(), "block"), " on ", Whose(blocks)));
}

std::string Title(const v1::ReplicaChange& change) {
  std::string title = absl::StrCat("PLAN  epoch ", Epochs(change), "   ", ChangeText(change));
  const std::string kept = KeptSizes(change.from(), change.to());
  if (!kept.empty()) absl::StrAppend(&title, "   ", kept);
  absl::StrAppend(&title, "   world ", WorldOf(change.from()), " → ", WorldOf(change.to()));
  const int gap = kColumns - DisplayWidth(title) - DisplayWidth(kUnchanged);
  if (gap < 3) return absl::StrCat(title, "\n      ", kUnchanged);
  return absl::StrCat(title, std::string(static_cast<size_t>(gap), ' '), kUnchanged);
}

std::string PageOf(const v1::ReplicaChange& change) {
  Page page;
  AddWorkers(change, page);
  AddWeights(change, page);
  AddKv(change, page);
  AddPeaks(change, page);
  page.Add("capacity", absl::StrCat(WithCommas(change.capacity_tokens_before()), " → ",
                                    Count(change.capacity_tokens_after(), "token")));
  page.Add("predicted",
           absl::StrCat("prepare ", HumanDuration(DurationOf(change.predicted_prepare())),
                        " (serving goes on), pause ",
                        HumanDuration(DurationOf(change.predicted_pause()))));
  return absl::StrCat(Title(change), "\n\n", page.text());
}

std::string PeakShare(const v1::ReplicaChange& change) {
  const Ranks ranks = FullestByBytes(change);
  if (ranks.empty()) return "-";
  return absl::StrFormat("%.0f %%", 100 * ShareOf(ranks[0]->peak_bytes(), ranks[0]->total_bytes()));
}

std::string Rows(const v1::PlanTopologyResponse& plan) {
  constexpr auto kRight = Table::Align::kRight;
  Table table({{"REPLICA"},
               {"EPOCH"},
               {"CHANGE"},
               {"RECRUITS", kRight},
               {"KV MOVES", kRight},
               {"STAYS", kRight},
               {"PEAK", kRight},
               {"PREPARE", kRight},
               {"PAUSE", kRight}});
  for (const auto& change : plan.changes()) {
    table.AddRow({absl::StrCat(change.replica()), Epochs(change), ChangeText(change),
                  absl::StrCat(RanksOf(change, v1::RankChange::ROLE_RECRUIT).size()),
                  HumanBytes(change.kv_bytes_moved()), WithCommas(change.kv_blocks_kept()),
                  PeakShare(change), HumanDuration(DurationOf(change.predicted_prepare())),
                  HumanDuration(DurationOf(change.predicted_pause()))});
  }
  return absl::StrCat("PLAN  ", Count(static_cast<uint64_t>(plan.changes_size()), "replica"),
                      ", one after the other   ", kUnchanged, "\n\n", table.ToString());
}

}  // namespace

std::string ChangeTable(const v1::PlanTopologyResponse& plan) {
  if (plan.changes_size() == 0) return "";
  return plan.changes_size() == 1 ? PageOf(plan.changes(0)) : Rows(plan);
}

}  // namespace muster::ctl
