// `musterctl forward`: tokens in, tokens out; or some of the layers, from file to file.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <random>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/files.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/forward_pass.h"
#include "client/ctl/generation.h"
#include "client/ctl/text.h"
#include "client/ctl/token_ids.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "One of --prompt-tokens, --prompt-file and --hidden-states-in is what enters. By itself the\n"
    "command generates --max-tokens tokens; with --layers, a file of hidden states or logits, or\n"
    "--sequence it runs what enters once, and prints the next token if the last layer ran.\n"
    "\n"
    "A model in two halves, the same next token as in one piece:\n"
    "  musterctl forward --prompt-file p --layers 0:15 --hidden-states-out h.npy\n"
    "  musterctl forward --hidden-states-in h.npy --layers 15:30\n"
    "Files of hidden states are NumPy's: float32, little endian, of shape (tokens, hidden); those\n"
    "of logits are of shape (vocabulary).";

struct ForwardOptions {
  std::string prompt_tokens;
  std::string prompt_file;
  std::string hidden_states_in;
  std::string hidden_states_out;
  std::string logits_out;
  std::string layers;
  std::string sequence;
  std::string client = "musterctl";
  uint32_t position = 0;
  bool keep = false;
  std::optional<uint32_t> replica;
  uint32_t max_tokens = 1;
  uint32_t top_n = 0;
  float temperature = 0;
  uint32_t top_k = 0;
  float top_p = 1;
  uint64_t seed = 0;
  bool ignore_eos = false;

  bool is_pass() const {
    return !layers.empty() || !hidden_states_in.empty() || !hidden_states_out.empty() ||
           !logits_out.empty() || !sequence.empty();
  }
};

v1::SamplingParameters SamplingOf(const ForwardOptions& options) {
  v1::SamplingParameters sampling;
  sampling.set_temperature(options.temperature);
  sampling.set_top_k(options.top_k);
  sampling.set_top_p(options.top_p);
  sampling.set_seed(options.seed);
  return sampling;
}

absl::Status Within(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("'", path, "': ", status.message()));
}

absl::StatusOr<std::vector<uint32_t>> PromptOf(const ForwardOptions& options) {
  if (options.prompt_file.empty()) return ParseTokenIds(options.prompt_tokens);
  MUSTER_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.prompt_file));
  auto tokens = ParseTokenIds(text);
  if (!tokens.ok()) return Within(options.prompt_file, tokens.status());
  return tokens;
}

double TokensPerSecond(const Generation& generation) {
  const double seconds = absl::ToDoubleSeconds(generation.decode_time);
  return seconds > 0 ? static_cast<double>(generation.steps.size() - 1) / seconds : 0;
}

void PrintToken(uint32_t token, const std::vector<v1::TokenLogprob>& top) {
  std::cout << token;
  for (const auto& entry : top) {
    std::cout << absl::StrFormat("   %d %.3f", entry.token_id(), entry.logprob());
  }
  std::cout << std::endl;
}

Json TopJson(const std::vector<v1::TokenLogprob>& top) {
  Json json = Json::array();
  for (const auto& entry : top) json.push_back({entry.token_id(), entry.logprob()});
  return json;
}

Json ToJson(const Generation& generation, const std::vector<uint32_t>& prompt) {
  Json json = {{"epoch", generation.epoch}, {"prompt_tokens", prompt}};
  json["tokens"] = Json::array();
  json["top"] = Json::array();
  for (const auto& step : generation.steps) {
    json["tokens"].push_back(step.token);
    json["top"].push_back(TopJson(step.top));
  }
  json["ttft_ms"] = absl::ToDoubleMilliseconds(generation.time_to_first_token);
  json["tokens_per_second"] = TokensPerSecond(generation);
  return json;
}

void PrintHead(const ForwardOptions& options, const GlobalOptions& global) {
  if (global.for_people() && options.top_n > 0) std::cout << "TOKEN  MOST LIKELY (ID LOGPROB)\n";
}

absl::Status RunGeneration(const ForwardOptions& options, const GlobalOptions& global) {
  GenerationOptions generation = {.max_tokens = options.max_tokens,
                                  .top_n = options.top_n,
                                  .sampling = SamplingOf(options),
                                  .ignore_eos = options.ignore_eos};
  MUSTER_ASSIGN_OR_RETURN(generation.prompt_tokens, PromptOf(options));
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  MUSTER_ASSIGN_OR_RETURN(const auto replica, FindServing(FleetClient(address), options.replica));
  const InferenceClient leader(LeaderOf(replica, address.tls));
  PrintHead(options, global);
  MUSTER_ASSIGN_OR_RETURN(const Generation result,
                          Generate(leader, generation, [&](const GenerationStep& step) {
                            if (global.for_people()) PrintToken(step.token, step.top);
                          }));
  if (!global.for_people()) {
    WriteReport(std::cout, global.output, ToJson(result, generation.prompt_tokens));
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

// A pass reads its files first, opens those to be written, and only then asks for anything.
class PassCommand {
 public:
  explicit PassCommand(const ForwardOptions& options) : options_(options) {}

  absl::Status Run(const GlobalOptions& global) {
    MUSTER_RETURN_IF_ERROR(Prepare());
    MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
    MUSTER_ASSIGN_OR_RETURN(const auto replica,
                            FindServing(FleetClient(address), options_.replica));
    const InferenceClient leader(LeaderOf(replica, address.tls));
    const auto pass = RunPass(leader, pass_);
    // What others named, and may try again with, outlasts a refusal.
    if (!options_.keep && (pass.ok() || options_.sequence.empty())) Free(leader);
    MUSTER_RETURN_IF_ERROR(pass.status());
    MUSTER_RETURN_IF_ERROR(Save(*pass));
    Report(*pass, global);
    return absl::OkStatus();
  }

 private:
  absl::Status Prepare() {
    pass_.client_id = options_.client;
    pass_.sequence_id = options_.sequence;
    if (options_.sequence.empty()) {
      pass_.client_id = absl::StrCat("musterctl-", std::random_device{}(), "-", getpid());
      pass_.sequence_id = "pass";
    }
    pass_.first_position = options_.position;
    pass_.top_n = options_.top_n;
    pass_.sampling = SamplingOf(options_);
    if (!options_.layers.empty()) {
      MUSTER_ASSIGN_OR_RETURN(pass_.layers, ParseLayers(options_.layers));
    }
    if (options_.hidden_states_in.empty()) {
      MUSTER_ASSIGN_OR_RETURN(pass_.token_ids, PromptOf(options_));
    } else {
      MUSTER_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(options_.hidden_states_in));
      auto states = ParseNpy(bytes);
      if (!states.ok()) return Within(options_.hidden_states_in, states.status());
      pass_.hidden_states = *std::move(states);
    }
    MUSTER_RETURN_IF_ERROR(Open(options_.hidden_states_out, hidden_states_));
    MUSTER_RETURN_IF_ERROR(Open(options_.logits_out, logits_));
    pass_.return_hidden_states = hidden_states_.has_value();
    pass_.return_logits = logits_.has_value();
    return absl::OkStatus();
  }

  static absl::Status Open(const std::string& path, std::optional<PendingFile>& file) {
    if (path.empty()) return absl::OkStatus();
    MUSTER_ASSIGN_OR_RETURN(file, PendingFile::Create(path));
    return absl::OkStatus();
  }

  void Free(const InferenceClient& leader) const {
    v1::FreeSequencesRequest request;
    request.set_client_id(pass_.client_id);
    request.add_sequence_ids(pass_.sequence_id);
    // The leader frees what is left when it must; nobody waits for this.
    leader.FreeSequences(request).IgnoreError();
  }

  absl::Status Save(const Pass& pass) {
    if (hidden_states_) MUSTER_RETURN_IF_ERROR(hidden_states_->Commit(ToNpy(pass.hidden_states)));
    if (!logits_) return absl::OkStatus();
    return logits_->Commit(ToNpy({{pass.logits.size()}, pass.logits}));
  }

  size_t positions() const {
    return pass_.hidden_states ? pass_.hidden_states->shape[0] : pass_.token_ids.size();
  }

  void Report(const Pass& pass, const GlobalOptions& global) const {
    if (!global.for_people()) return WriteReport(std::cout, global.output, ReportJson(pass));
    PrintHead(options_, global);
    if (pass.token) PrintToken(*pass.token, pass.top);
    std::cerr << absl::StrCat(Count(positions(), "position"), " through layers ",
                              pass.layers.begin(), ":", pass.layers.end(), " in ",
                              HumanDuration(pass.device_time));
    if (hidden_states_) std::cerr << ", hidden states in " << hidden_states_->path();
    if (logits_) std::cerr << ", logits in " << logits_->path();
    std::cerr << "\n";
  }

  Json ReportJson(const Pass& pass) const {
    Json json = {{"epoch", pass.epoch},
                 {"step", pass.step},
                 {"layers", {pass.layers.begin(), pass.layers.end()}},
                 {"first_position", pass_.first_position},
                 {"positions", positions()},
                 {"device_ms", absl::ToDoubleMilliseconds(pass.device_time)}};
    json["tokens"] = Json::array();
    json["top"] = Json::array();
    if (pass.token) {
      json["tokens"].push_back(*pass.token);
      json["logprob"] = pass.logprob;
      json["top"].push_back(TopJson(pass.top));
    }
    if (hidden_states_) json["hidden_states_file"] = hidden_states_->path();
    if (logits_) json["logits_file"] = logits_->path();
    return json;
  }

  const ForwardOptions& options_;
  PassOptions pass_;
  std::optional<PendingFile> hidden_states_;
  std::optional<PendingFile> logits_;
};

absl::Status RunForward(const ForwardOptions& options, const GlobalOptions& global) {
  return options.is_pass() ? PassCommand(options).Run(global) : RunGeneration(options, global);
}

void AddWhatEnters(CLI::App& forward, ForwardOptions& options) {
  forward.add_option("--prompt-tokens", options.prompt_tokens, "Token ids, e.g. 1,2,3")
      ->type_name("IDS");
  forward
      .add_option("--prompt-file", options.prompt_file,
                  "Token ids in a file, as JSON or with spaces or commas between; - is stdin")
      ->type_name("FILE");
  forward
      .add_option("--hidden-states-in", options.hidden_states_in,
                  "What enters the first of --layers, instead of tokens: a .npy file")
      ->type_name("FILE");
}

void AddPassOptions(CLI::App& forward, ForwardOptions& options) {
  forward
      .add_option("--layers", options.layers, "Run these layers, END not among them (default: all)")
      ->type_name("BEGIN:END");
  forward
      .add_option("--hidden-states-out", options.hidden_states_out,
                  "Write what leaves the last of --layers, of every position: a .npy file")
      ->type_name("FILE");
  forward
      .add_option("--logits-out", options.logits_out,
                  "Write the logits after the last position: a .npy file")
      ->type_name("FILE");
  forward
      .add_option("--sequence", options.sequence,
                  "Name the sequence, which other calls can go on with; freed at the end unless "
                  "--keep")
      ->type_name("ID");
  forward.add_option("--client", options.client, "With --sequence: whose sequence it is")
      ->type_name("ID")
      ->capture_default_str();
  forward.add_option("--position", options.position, "Of what enters first, in the sequence")
      ->type_name("N")
      ->capture_default_str();
  forward.add_flag("--keep", options.keep, "With --sequence: do not free it at the end");
}

void AddSamplingOptions(CLI::App& forward, ForwardOptions& options) {
  forward.add_option("--max-tokens", options.max_tokens, "Tokens to generate at most")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  forward.add_option("--top", options.top_n, "Most likely tokens to show per step, 0 to 64")
      ->check(CLI::Range(0, 64))
      ->type_name("N")
      ->capture_default_str();
  forward.add_option("--temperature", options.temperature, "0 is greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("X")
      ->capture_default_str();
  forward.add_option("--top-k", options.top_k, "Sample among the k most likely; 0: all")
      ->type_name("N")
      ->capture_default_str();
  forward.add_option("--top-p", options.top_p, "Sample among the most likely up to this mass")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str();
  forward.add_option("--seed", options.seed, "Of the random numbers")
      ->type_name("N")
      ->capture_default_str();
  forward.add_flag("--ignore-eos", options.ignore_eos, "Go on after the model's end tokens");
}

void Refuse(const char* flag, absl::string_view what) {
  throw CLI::ValidationError(flag, std::string(what));
}

// Throws what CLI11 reports as a wrong command line.
void Check(const ForwardOptions& options) {
  const int sources = !options.prompt_tokens.empty() + !options.prompt_file.empty() +
                      !options.hidden_states_in.empty();
  if (sources != 1)
    Refuse("forward", "wants one of --prompt-tokens, --prompt-file and --hidden-states-in");
  if (!options.prompt_tokens.empty()) {
    const auto tokens = ParseTokenIds(options.prompt_tokens);
    if (!tokens.ok()) Refuse("--prompt-tokens", tokens.status().message());
  }
  if (!options.layers.empty()) {
    const auto layers = ParseLayers(options.layers);
    if (!layers.ok()) Refuse("--layers", layers.status().message());
  }
  const bool names_pass = options.keep || options.position > 0;
  if (names_pass && options.sequence.empty()) {
    Refuse(options.keep ? "--keep" : "--position",
           "wants --sequence, which names what it is about");
  }
  if (options.is_pass() && options.max_tokens > 1) {
    Refuse("--max-tokens", "generates, which --layers, files and --sequence do not: they run once");
  }
}

}  // namespace

void AddForwardCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<ForwardOptions>();
  CLI::App* forward = app.add_subcommand("forward", "Run token ids through the model");
  forward->footer(kFooter);
  AddWhatEnters(*forward, *options);
  AddSamplingOptions(*forward, *options);
  AddPassOptions(*forward, *options);
  forward->add_option("--replica", options->replica, "Which replica (default: the first that serves)")
      ->type_name("N");
  forward->callback([options, &global, &chosen] {
    Check(*options);
    chosen = [options, &global] { return ExitStatus(RunForward(*options, global)); };
  });
}

}  // namespace muster::ctl
