#include "worker/model/golden.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/status_macros.h"
#include "worker/model/json_object.h"
#include "worker/model/model_file.h"
#include "worker/model/safetensors.h"

namespace muster {
namespace {

std::vector<std::vector<float>> RowsOf(const SafetensorsFile& file, const std::string& tensor) {
  std::vector<std::vector<float>> rows;
  const auto it = file.tensors().find(tensor);
  if (it == file.tensors().end()) return rows;
  rows.resize(it->second.shape[0], std::vector<float>(it->second.shape[1]));
  const std::byte* data = file.data(it->second);
  for (std::vector<float>& row : rows) {
    std::memcpy(row.data(), data, row.size() * sizeof(float));
    data += row.size() * sizeof(float);
  }
  return rows;
}

}  // namespace

absl::StatusOr<Golden> ReadGolden(const std::string& name) {
  Golden golden = {.directory = "tests/testdata/goldens/" + name};
  MUSTER_ASSIGN_OR_RETURN(const auto text,
                          ReadModelFile(golden.directory, "golden.json", size_t{1} << 20));
  MUSTER_ASSIGN_OR_RETURN(const auto json, ParseJson(text.value_or(""), "golden.json"));
  golden.prompt = json->at("prompt").get<std::vector<int>>();
  golden.tokens = json->at("tokens").get<std::vector<int>>();
  MUSTER_ASSIGN_OR_RETURN(
      const auto file,
      SafetensorsFile::Open(golden.directory + "/golden.safetensors", "golden.safetensors"));
  golden.logits = RowsOf(*file, "logits");
  golden.prompt_logits = RowsOf(*file, "prompt_logits");
  golden.logits_bf16 = RowsOf(*file, "logits_bf16");
  return golden;
}

}  // namespace muster
