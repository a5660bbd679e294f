#include "worker/model/config_fields.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "worker/model/model_error.h"

namespace muster {
namespace {

// Nothing that a forward pass computes depends on these, whatever they are set to.
constexpr absl::string_view kHarmless[] = {
    // Where the files come from, and what reads them.
    "attn_implementation", "auto_map", "dtype", "is_llama_config", "model_type", "torch_dtype",
    "torchscript", "transformers_version",
    // Training.
    "attention_dropout", "embd_pdrop", "finetuned", "hidden_dropout", "initializer_range",
    "resid_pdrop", "use_bfloat16", "use_cache",
    // What a library returns.
    "finetuning_task", "id2label", "is_decoder", "label2id", "output_attentions",
    "output_hidden_states", "output_scores", "problem_type", "return_dict",
    "return_dict_in_generate", "task_specific_params",
    // The tokenizer.
    "bos_token_id", "decoder_start_token_id", "max_sequence_length", "model_max_length",
    "pad_token_id", "prefix", "sep_token_id", "tokenizer_class", "unk_token_id",
    // Generation, which a scheduler asks for step by step.
    "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward", "diversity_penalty",
    "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "max_new_tokens", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "remove_invalid_values",
    "repetition_penalty", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p"};

// Private fields of libraries, and of tools that leave their mark.
constexpr absl::string_view kHarmlessPrefixes[] = {"_", "transformers.", "unsloth_"};

// Multipliers and switches that other architectures have, and the value that leaves them out.
constexpr absl::string_view kNeutralAtOne[] = {"embedding_multiplier",
                                               "is_causal",
                                               "lm_head_multiplier",
                                               "logit_scale",
                                               "logits_scaling",
                                               "partial_rotary_factor",
                                               "pretraining_tp",
                                               "residual_multiplier",
                                               "rope_ratio",
                                               "rotary_pct",
                                               "use_rope"};

bool IsHarmless(absl::string_view field) {
  return absl::c_linear_search(kHarmless, field) ||
         absl::c_any_of(kHarmlessPrefixes, [field](absl::string_view prefix) {
           return absl::StartsWith(field, prefix);
         });
}

bool IsNeutral(absl::string_view field, const nlohmann::json& value) {
  const bool at_one = absl::c_linear_search(kNeutralAtOne, field);
  if (value.is_boolean()) return value.get<bool>() == at_one;
  if (value.is_number()) return value.get<double>() == (at_one ? 1.0 : 0.0);
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();
}

}  // namespace

absl::Status RefuseUnknownFields(const JsonObject& json) {
  for (const std::string& field : json.Unasked()) {
    const nlohmann::json& value = *json.Find(field);
    if (IsHarmless(field) || IsNeutral(field, value)) continue;
    return ModelUnusable(json.place(), ": ", field, " ", Excerpt(value),
                         " is not supported: it may change what the model computes. Remove the "
                         "field if it does not");
  }
  return absl::OkStatus();
}

}  // namespace muster
