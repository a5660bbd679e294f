// `musterctl certs`: a private certificate authority for a test cluster, and what it issues.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/certs/authority.h"
#include "client/certs/inspection_text.h"
#include "client/certs/tls_folder.h"
#include "client/ctl/command.h"

namespace muster::ctl {
namespace {

constexpr int kMaxDays = 3650;

constexpr char kFooter[] =
    "For test clusters and single machines; a production cluster has an authority of its own\n"
    "(cert-manager, SPIRE) that issues the same: one URI among a certificate's names says who it\n"
    "speaks for, spiffe://TRUST-DOMAIN/muster/ROLE[/ID].\n"
    "\n"
    "  musterctl certs init ca\n"
    "  musterctl certs issue coordinator --ca ca --out tls/coordinator\n"
    "  musterctl certs issue worker gpu-0 --ca ca --out tls/gpu-0\n"
    "  musterctl certs issue scheduler --ca ca --out tls/scheduler\n"
    "  musterctl certs show tls/gpu-0";

constexpr char kIssueFooter[] =
    "Issued again into the same folder, certificate and key are replaced in one step; daemons "
    "that\n"
    "run take the new ones for connections from then on.";

constexpr char kShowFooter[] =
    "Of a folder it looks at tls.crt, tls.key and ca.crt together, else at an authority's ca.crt\n"
    "and ca.key. Exit status 1 when what is there cannot be used, as when it has expired.";

// Prints what is in `path`. FAILED_PRECONDITION where it cannot be used.
absl::Status Show(const std::string& path, const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const certs::Inspection inspection, certs::Inspect(path));
  const absl::Time now = absl::Now();
  if (global.for_people()) {
    std::cout << certs::InspectionText(inspection, now);
  } else {
    WriteReport(std::cout, global.output, certs::InspectionJson(inspection, now));
  }
  const std::vector<std::string> problems = inspection.Problems(now);
  return problems.empty() ? absl::OkStatus() : absl::FailedPreconditionError(problems[0]);
}

absl::Status Init(const std::string& directory, const std::string& trust_domain,
                  const GlobalOptions& global) {
  MUSTER_RETURN_IF_ERROR(certs::Authority::Create(directory, trust_domain, absl::Now()).status());
  return Show(directory, global);
}

struct IssueOptions {
  certs::IssueRequest request;
  int days = 90;
  std::string authority;
  std::string out;
};

absl::Status Issue(const IssueOptions& options, const GlobalOptions& global) {
  certs::IssueRequest request = options.request;
  request.validity = absl::Hours(24) * options.days;
  MUSTER_ASSIGN_OR_RETURN(const auto authority, certs::Authority::Open(options.authority));
  MUSTER_ASSIGN_OR_RETURN(const auto credentials, authority.Issue(request, absl::Now()));
  std::error_code error;
  if (std::filesystem::exists(options.out + "/ca.key", error)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--out: ", options.out,
        " holds the key of an authority, which no daemon and no client is to have: name another"));
  }
  MUSTER_RETURN_IF_ERROR(certs::WriteTlsFolder(options.out, credentials));
  return Show(options.out, global);
}

void AddInit(CLI::App& certs, const GlobalOptions& global, Command& chosen) {
  auto directory = std::make_shared<std::string>();
  auto trust_domain = std::make_shared<std::string>("muster.local");
  CLI::App* init = certs.add_subcommand("init", "Make an authority of one's own");
  init->add_option("folder", *directory, "Where it is kept, a new folder")
      ->type_name("DIR")
      ->required();
  init->add_option("--trust-domain", *trust_domain, "Names the cluster in all its certificates")
      ->type_name("NAME")
      ->capture_default_str();
  init->callback([=, &global, &chosen] {
    chosen = [=, &global] { return ExitStatus(Init(*directory, *trust_domain, global)); };
  });
}

void AddIssue(CLI::App& certs, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<IssueOptions>();
  CLI::App* issue = certs.add_subcommand("issue", "Issue a certificate, or a new one in its place");
  issue->footer(kIssueFooter);
  issue->add_option("role", options->request.role, "Of whoever holds it")
      ->check(CLI::IsMember({"worker", "coordinator", "scheduler", "operator"}))
      ->type_name("ROLE")
      ->required();
  issue->add_option("id", options->request.id, "Of a worker its --worker-id; others may have one")
      ->type_name("ID");
  issue->add_option("--ca", options->authority, "Folder of the authority")
      ->type_name("DIR")
      ->required();
  issue->add_option("--out", options->out, "Folder for tls.crt, tls.key and ca.crt")
      ->type_name("DIR")
      ->required();
  issue->add_option("--days", options->days, "How long it lasts")
      ->check(CLI::Range(1, kMaxDays))
      ->type_name("N")
      ->capture_default_str();
  issue->add_option("--dns", options->request.dns_names, "Further DNS names of a daemon")
      ->type_name("NAME");
  issue->add_option("--ip", options->request.ip_addresses, "IP addresses of a daemon")
      ->type_name("ADDRESS");
  issue->callback([options, &global, &chosen] {
    chosen = [options, &global] { return ExitStatus(Issue(*options, global)); };
  });
}

void AddShow(CLI::App& certs, const GlobalOptions& global, Command& chosen) {
  auto path = std::make_shared<std::string>();
  CLI::App* show =
      certs.add_subcommand("show", "Say what a certificate is for, and whether it is good");
  show->footer(kShowFooter);
  show->add_option("path", *path, "A certificate, or a folder")->type_name("PATH")->required();
  show->callback([path, &global, &chosen] {
    chosen = [path, &global] { return ExitStatus(Show(*path, global)); };
  });
}

}  // namespace

void AddCertsCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  CLI::App* certs =
      app.add_subcommand("certs", "Make certificates for a test cluster, and look at any");
  certs->footer(kFooter);
  certs->require_subcommand(1);
  AddInit(*certs, global, chosen);
  AddIssue(*certs, global, chosen);
  AddShow(*certs, global, chosen);
}

}  // namespace muster::ctl
