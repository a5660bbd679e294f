// `musterctl forward`: tokens in, tokens out.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_json.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/generation.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

struct ForwardOptions {
  std::string prompt_tokens;
  GenerationOptions generation;
  uint32_t replica = 0;
  float temperature = 0;
  uint32_t top_k = 0;
  float top_p = 1;
  uint64_t seed = 0;
};

// "1,2,3". Throws what CLI11 reports as a wrong command line.
std::vector<uint32_t> ParseTokens(const std::string& text) {
  std::vector<uint32_t> tokens;
  for (absl::string_view word : absl::StrSplit(text, ',')) {
    uint32_t token;
    if (!absl::SimpleAtoi(word, &token)) {
      throw CLI::ValidationError("--prompt-tokens",
                                 absl::StrCat("wants token ids like 1,2,3, not '", text, "'"));
    }
    tokens.push_back(token);
  }
  return tokens;
}

// The leader of a replica that serves.
absl::StatusOr<std::string> FindLeader(const FleetClient& client, uint32_t replica) {
  MUSTER_ASSIGN_OR_RETURN(const auto topology, client.GetTopology());
  for (const auto& status : topology.replicas()) {
    if (status.replica() != replica) continue;
    if (status.state() == v1::REPLICA_STATE_SERVING) return LeaderAddress(status);
    return absl::UnavailableError(
        absl::StrCat("replica ", replica, " is ", StateName(status.state()), " and does not serve",
                     status.has_failure() ? absl::StrCat(": ", status.failure().message()) : ""));
  }
  return absl::NotFoundError(absl::StrCat("there is no replica ", replica, ": the fleet has ",
                                          Count(topology.replicas_size(), "replica")));
}

double TokensPerSecond(const Generation& generation) {
  const double seconds = absl::ToDoubleSeconds(generation.decode_time);
  return seconds > 0 ? static_cast<double>(generation.steps.size() - 1) / seconds : 0;
}

void PrintStep(const GenerationStep& step) {
  std::cout << step.token;
  for (const auto& entry : step.top) {
    std::cout << absl::StrFormat("   %d %.3f", entry.token_id(), entry.logprob());
  }
  std::cout << std::endl;
}

Json ToJson(const Generation& generation, const std::vector<uint32_t>& prompt) {
  Json json = {{"epoch", generation.epoch}, {"prompt_tokens", prompt}};
  json["tokens"] = Json::array();
  json["top"] = Json::array();
  for (const auto& step : generation.steps) {
    json["tokens"].push_back(step.token);
    Json top = Json::array();
    for (const auto& entry : step.top) top.push_back({entry.token_id(), entry.logprob()});
    json["top"].push_back(top);
  }
  json["ttft_ms"] = absl::ToDoubleMilliseconds(generation.time_to_first_token);
  json["tokens_per_second"] = TokensPerSecond(generation);
  return json;
}

absl::Status RunForward(const ForwardOptions& options, const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.coordinator));
  const FleetClient client(address);
  MUSTER_ASSIGN_OR_RETURN(const std::string leader_address, FindLeader(client, options.replica));
  const InferenceClient leader(leader_address);
  GenerationOptions generation = options.generation;
  generation.sampling.set_temperature(options.temperature);
  generation.sampling.set_top_k(options.top_k);
  generation.sampling.set_top_p(options.top_p);
  generation.sampling.set_seed(options.seed);
  if (!global.json && generation.top_n > 0) std::cout << "TOKEN  MOST LIKELY (ID LOGPROB)\n";
  MUSTER_ASSIGN_OR_RETURN(const Generation result,
                          Generate(leader, generation, [&](const GenerationStep& step) {
                            if (!global.json) PrintStep(step);
                          }));
  if (global.json) {
    std::cout << ToLine(ToJson(result, generation.prompt_tokens)) << "\n";
    return absl::OkStatus();
  }
  std::cerr << absl::StrCat(Count(result.steps.size(), "token"), ", first after ",
                            HumanDuration(result.time_to_first_token));
  if (result.steps.size() > 1) {
    std::cerr << absl::StrFormat(", then %.1f tokens/s", TokensPerSecond(result));
  }
  std::cerr << "\n";
  return absl::OkStatus();
}

}  // namespace

void AddForwardCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<ForwardOptions>();
  GenerationOptions& generation = options->generation;
  CLI::App* forward = app.add_subcommand("forward", "Run token ids through the model");
  forward->add_option("--prompt-tokens", options->prompt_tokens, "Token ids, e.g. 1,2,3")
      ->type_name("IDS")
      ->required();
  forward->add_option("--max-tokens", generation.max_tokens, "Tokens to generate at most")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  forward->add_option("--top", generation.top_n, "Most likely tokens to show per step, 0 to 64")
      ->check(CLI::Range(0, 64))
      ->type_name("N")
      ->capture_default_str();
  forward->add_option("--temperature", options->temperature, "0 is greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("X")
      ->capture_default_str();
  forward->add_option("--top-k", options->top_k, "Sample among the k most likely; 0: all")
      ->type_name("N")
      ->capture_default_str();
  forward->add_option("--top-p", options->top_p, "Sample among the most likely up to this mass")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str();
  forward->add_option("--seed", options->seed, "Of the random numbers")
      ->type_name("N")
      ->capture_default_str();
  forward->add_option("--replica", options->replica, "Which replica")
      ->type_name("N")
      ->capture_default_str();
  forward->add_flag("--ignore-eos", generation.ignore_eos, "Go on after the model's end tokens");
  forward->callback([options, &global, &chosen] {
    options->generation.prompt_tokens = ParseTokens(options->prompt_tokens);
    chosen = [options, &global] { return ExitStatus(RunForward(*options, global)); };
  });
}

}  // namespace muster::ctl
