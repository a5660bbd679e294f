#!/usr/bin/env python3
"""Makes the small random models and golden logits under goldens/, with transformers as oracle.

    python3 tests/testdata/make_goldens.py --out tests/testdata/goldens [NAME ...]

Makes the models of those names, or all. Needs numpy, torch, safetensors and transformers 5; runs on
a CPU in a few minutes, most of which dynamic rope takes. Each model is a directory in Hugging
Face's layout, whose weights come from numpy's Philox under the seed in MODELS. transformers then
loads that very directory, and writes beside the model:

  golden.json         prompt, tokens (greedy, the end token disabled), min_margin: the least gap
                      between the best and the second logit of a step, sensitivity: how far the last
                      step's logits move when the first prompt token is another
  golden.safetensors  F32 tensors. logits [tokens, vocabulary]: row i is what tokens[i] was chosen
                      from, weights as stored and arithmetic in fp32. prompt_logits [prompt,
                      vocabulary]: the same after each prompt token. For a bf16 model also
                      logits_bf16 [tokens, vocabulary]: arithmetic in bf16, over the same tokens.

Of PROMPTS random prompts the one with the largest min_margin is kept (among those which do not run
in circles), so that a test of tokens does not hang on a near-tie.
"""

import argparse
import copy
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

PROMPT_TOKENS = 70
NEW_TOKENS = 24
PROMPTS = 64

_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Far below the length of a test, so that the scaling decides what attention sees.
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
_COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 96,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-5,
}
# A small one of two layers, of which others are variants.
_SMALL = _COMMON | {
    "hidden_size": 48,
    "intermediate_size": 61,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 97,
}
# The tokens that a text under dynamic rope has before its frequencies change.
_DYNAMIC_ORIGINAL = 32
# Name: (seed, number of safetensors files, config.json beyond _COMMON).
MODELS = {
    # Every tp and cp up to 4 divides the heads; vocabulary and FFN divide by none of 3, 4, 6, 8.
    "llama-mha12": (1, 1, {
        "intermediate_size": 130,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": 101,
    }),
    # The newer form of config.json, and heads wider together than the hidden states.
    "llama-gqa8": (2, 2, {
        "dtype": "bfloat16",
        "head_dim": 16,
        "intermediate_size": 160,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_theta": 10000.0, **_LLAMA3},
        "tie_word_embeddings": False,
        "vocab_size": 199,
    }),
    "llama-gqa6": (3, 1, {
        "intermediate_size": 77,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "rope_scaling": _LLAMA3,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": 257,
    }),
    # One KV head, which every rank of a tensor-parallel group must hold.
    "llama-mqa12": (4, 1, {
        "intermediate_size": 96,
        "num_attention_heads": 12,
        "num_key_value_heads": 1,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": 128,
    }),
    "llama-linear": (5, 1, _SMALL | {
        "rope_scaling": {"type": "linear", "factor": 3.0},
    }),
    "llama-dynamic": (6, 1, _SMALL | {
        "max_position_embeddings": _DYNAMIC_ORIGINAL,
        "rope_scaling": {"type": "dynamic", "factor": 4.0},
    }),
    "llama-yarn": (7, 1, _SMALL | {
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rope_parameters": {
            "rope_theta": 500.0,
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 4.0,
        },
    }),
    # Every bias that a Llama can have.
    "llama-bias": (8, 1, _SMALL | {"attention_bias": True, "mlp_bias": True}),
    # A window that is no multiple of a KV block, and shorter than the prompt.
    "mistral": (9, 1, _SMALL | {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "num_attention_heads": 12,
        "num_key_value_heads": 6,
        "head_dim": 6,
        "sliding_window": 20,
    }),
    "qwen2": (16, 1, _SMALL | {
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 2,
        "model_type": "qwen2",
        "sliding_window": 16,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    }),
    # The upper of its two layers has a window.
    "qwen3": (11, 1, _SMALL | {
        "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 10,
        "layer_types": ["full_attention", "sliding_attention"],
        "max_window_layers": 1,
        "model_type": "qwen3",
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "sliding_window": 24,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
    }),
}


def vectors(config: dict, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's biases and of the norms of its heads, where it has them."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    result = {}
    if config["attention_bias"] or config["model_type"] == "qwen2":
        result |= {
            f"{prefix}.self_attn.q_proj.bias": (heads * head_dim,),
            f"{prefix}.self_attn.k_proj.bias": (kv_heads * head_dim,),
            f"{prefix}.self_attn.v_proj.bias": (kv_heads * head_dim,),
        }
    if config["attention_bias"]:
        result[f"{prefix}.self_attn.o_proj.bias"] = (hidden,)
    if config["mlp_bias"]:
        result |= {
            f"{prefix}.mlp.gate_proj.bias": (ffn,),
            f"{prefix}.mlp.up_proj.bias": (ffn,),
            f"{prefix}.mlp.down_proj.bias": (hidden,),
        }
    if config["model_type"] == "qwen3":
        result |= {
            f"{prefix}.self_attn.q_norm.weight": (head_dim,),
            f"{prefix}.self_attn.k_norm.weight": (head_dim,),
        }
    return result


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of a model, in the order of its files."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    result = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        result |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (heads * head_dim, hidden),
            f"{prefix}.self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
            f"{prefix}.self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, heads * head_dim),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.mlp.gate_proj.weight": (ffn, hidden),
            f"{prefix}.mlp.up_proj.weight": (ffn, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, ffn),
        } | vectors(config, prefix)
    result["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        result["lm_head.weight"] = (config["vocab_size"], hidden)
    return result


def random_weights(config: dict, seed: int) -> dict[str, np.ndarray]:
    """Weights in float32, scaled so that logits are a few units apart.

    What the layers add outweighs the embedding: otherwise attention over the far past would drown
    in rounding, and a tied model would repeat its last token for ever.
    """
    random = np.random.Generator(np.random.Philox(seed))
    gains = {"q_proj": 1.4, "k_proj": 1.4, "o_proj": 4.0, "down_proj": 4.0}
    result = {}
    for name, shape in shapes(config).items():
        values = random.standard_normal(shape, dtype=np.float32)
        if "norm" in name:
            result[name] = 1 + values / 4
        elif name.endswith(".bias"):
            result[name] = values / 2
        elif "embed" in name or "lm_head" in name:
            result[name] = values * np.float32(0.4)
        else:
            gain = gains.get(name.split(".")[-2], 1.0)
            result[name] = values * np.float32(gain / shape[1] ** 0.5)
    return result


def write_model(directory: Path, config: dict, seed: int, files: int) -> None:
    """Writes config.json and the weights, in `files` safetensors files with an index if several."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    dtype = getattr(torch, config.get("torch_dtype") or config["dtype"])
    tensors = {
        name: torch.from_numpy(values).to(dtype)
        for name, values in random_weights(config, seed).items()
    }
    if files == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    bounds = [len(names) * i // files for i in range(files + 1)]
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
    for i in range(files):
        part = names[bounds[i]:bounds[i + 1]]
        file = f"model-{i + 1:05}-of-{files:05}.safetensors"
        save_file({n: tensors[n] for n in part}, directory / file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_oracle(directory: Path, dtype: torch.dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager")
    return model.eval()


def logits_after(model, tokens: list[int]) -> torch.Tensor:
    """Logits after each token, as float32: [tokens, vocabulary]."""
    if model.config.rope_parameters["rope_type"] == "dynamic":
        return logits_step_by_step(model, tokens)
    return model(torch.tensor([tokens]), use_cache=False).logits[0].float()


def logits_step_by_step(model, tokens: list[int]) -> torch.Tensor:
    """The same, of a text whose tokens come one by one once its frequencies may change.

    Under dynamic rope they depend on the length so far, and what is cached stays as it was.
    """
    # One less than the original length: only below it the oracle forgets the text before.
    first = _DYNAMIC_ORIGINAL - 1
    steps = [tokens[:first], *([token] for token in tokens[first:])]
    cache = transformers.DynamicCache(config=model.config)
    logits = [model(torch.tensor([step]), past_key_values=cache).logits[0] for step in steps]
    return torch.cat(logits).float()


def continue_greedily(model, prompt: list[int]) -> tuple[list[int], torch.Tensor, float]:
    """Greedy tokens, logits after each token of prompt + tokens but the last, and min_margin."""
    tokens: list[int] = []
    margin = float("inf")
    for _ in range(NEW_TOKENS):
        logits = logits_after(model, prompt + tokens)
        best, second = logits[-1].topk(2).values.tolist()
        margin = min(margin, best - second)
        tokens.append(int(logits[-1].argmax()))
    return tokens, logits, margin


def make_golden(directory: Path, config: dict, seed: int) -> dict:
    """Runs the oracle over a model's directory and writes its golden files; returns golden.json."""
    vocabulary = config["vocab_size"]
    model = load_oracle(directory, torch.float32)
    random = np.random.Generator(np.random.Philox(1000 + seed))
    prompts = random.integers(vocabulary, size=(PROMPTS, PROMPT_TOKENS)).tolist()
    runs = [(prompt, *continue_greedily(model, prompt)) for prompt in prompts]
    varied = [run for run in runs if len(set(run[1])) >= NEW_TOKENS // 2]
    prompt, tokens, logits, margin = max(varied, key=lambda run: run[-1])

    history = prompt + tokens[:-1]
    tensors = {
        "logits": logits[PROMPT_TOKENS - 1:].clone(),
        "prompt_logits": logits[:PROMPT_TOKENS].clone(),
    }
    if config.get("dtype") == "bfloat16":
        in_bf16 = logits_after(load_oracle(directory, torch.bfloat16), history)
        tensors["logits_bf16"] = in_bf16[PROMPT_TOKENS - 1:].clone()
    save_file(tensors, directory / "golden.safetensors")

    other = [(history[0] + 1) % vocabulary] + history[1:]
    sensitivity = float((logits_after(model, other)[-1] - logits[-1]).abs().max())
    golden = {
        "oracle": f"transformers {transformers.__version__}, torch {torch.__version__}, CPU",
        "weights_seed": seed,
        "prompt": prompt,
        "tokens": tokens,
        "min_margin": margin,
        "sensitivity": sensitivity,
    }
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(v)}" for key, v in golden.items())
    (directory / "golden.json").write_text("{\n" + lines + "\n}\n")
    return golden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model, default: all")
    arguments = parser.parse_args()
    out = arguments.out
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for name in arguments.names or MODELS:
        seed, files, own = MODELS[name]
        directory = out / name
        if directory.exists():
            shutil.rmtree(directory)
        config = copy.deepcopy(_COMMON | own)
        write_model(directory, config, seed, files)
        golden = make_golden(directory, config, seed)
        size = sum(file.stat().st_size for file in directory.iterdir())
        print(f"{name}: {size} bytes, {len(set(golden['tokens']))} different tokens,"
              f" min_margin {golden['min_margin']:.4f}, sensitivity {golden['sensitivity']:.4f}")


if __name__ == "__main__":
    main()
