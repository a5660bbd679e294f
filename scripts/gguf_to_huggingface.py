"""Turns a GGUF file of the Llama family into an ordinary Hugging Face directory.

The weights become one bf16 safetensors file, whatever they were quantized to. Two things differ
between the formats beyond names: llama.cpp stores the rows of q and k interleaved for its rotary
embedding, and keeps the tokenizer as a list of tokens and merges in the metadata.
"""

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PER_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_CONTROL_TOKEN = 3  # value in tokenizer.ggml.token_type


class ConversionError(Exception):
    """The GGUF file is not one that this converter understands."""


def huggingface_name(gguf_name: str) -> str:
    """Name of a tensor in LlamaForCausalLM, from its name in a GGUF file."""
    if gguf_name in _TOP_LEVEL:
        return _TOP_LEVEL[gguf_name]
    parts = gguf_name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in _PER_LAYER:
        return f"model.layers.{parts[1]}.{_PER_LAYER[parts[2]]}"
    raise ConversionError(f"the GGUF file holds a tensor that Llama does not have: {gguf_name!r}")


def unpermute_rotary(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorders q or k rows from llama.cpp's rotary layout to Hugging Face's.

    llama.cpp rotates the neighbours (2i, 2i+1) of a head, Hugging Face the pair (i, i + dim/2).

    Args:
      rows: [heads * head_dim, hidden].
      heads: of q, or of k, whichever `rows` belongs to.
    """
    out_features, hidden = rows.shape
    if out_features % (2 * heads) != 0:
        raise ConversionError(f"{out_features} rows do not split into {heads} heads of pairs")
    pairs = rows.reshape(heads, out_features // heads // 2, 2, hidden)
    return pairs.swapaxes(1, 2).reshape(out_features, hidden)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounds float32 to the nearest bf16, ties to even; returns the bits as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    nearest = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    # Rounding could carry a NaN over into infinity or a number: keep it, and make it quiet.
    quiet_nan = (bits >> 16) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet_nan, nearest).astype(np.uint16)


def write_bfloat16_safetensors(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, np.ndarray]],
) -> None:
    """Writes a safetensors file of bf16 tensors, holding one of them in memory at a time.

    Args:
      path: the file to write.
      shapes: every tensor's shape, in the order of the file.
      tensors: name and bf16 bits (uint16) of each, in the same order.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (name, shape), (given, bits) in zip(shapes.items(), tensors, strict=True):
            if given != name or bits.shape != shape or bits.dtype != np.uint16:
                raise ConversionError(f"{name} {shape} was announced, {given} {bits.shape} came")
            file.write(bits.astype("<u2", copy=False).tobytes())


def model_config(field: Callable[[str], object], tied: bool) -> dict:
    """config.json of the model, from the GGUF metadata."""
    architecture = field("general.architecture")
    if architecture != "llama":
        raise ConversionError(f"architecture {architecture!r}: only 'llama' can be converted")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": field("llama.attention.head_count"),
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        # GGUF keeps it as float32: 9.9999997e-06 was written as 1e-05.
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_scaling": None,
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": field("llama.vocab_size"),
    }


def build_tokenizer(tokens: list[str], kinds: list[int], merges: list[str]) -> Tokenizer:
    """Byte-level BPE with individual digits.

    Args:
      tokens: text of each id, bytes written in the usual byte-level alphabet.
      kinds: tokenizer.ggml.token_type of each id; control tokens become special tokens.
      merges: "left right", best first.
    """
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN
    ])
    return tokenizer


def tokenizer_config(field: Callable[[str], object], tokens: list[str]) -> dict:
    """tokenizer_config.json, the chat template included, from the GGUF metadata."""

    def token(role: str) -> str:
        return tokens[field(f"tokenizer.ggml.{role}_token_id")]

    return {
        "add_prefix_space": False,
        "bos_token": token("bos"),
        "chat_template": field("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": token("eos"),
        "model_max_length": field("llama.context_length"),
        "pad_token": token("padding"),
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": token("unknown"),
    }


def convert(gguf_file: Path, directory: Path, progress: Callable[[int, int], None]) -> None:
    """Writes the Hugging Face directory of a GGUF file.

    Args:
      gguf_file: a model of the Llama family with a byte-level BPE tokenizer of SmolLM's kind.
      directory: an existing directory; receives config.json, generation_config.json,
        model.safetensors, tokenizer.json and tokenizer_config.json.
      progress: called with (tensors done, tensors in all) after each tensor.

    Raises:
      ConversionError: the file holds something else.
    """
    reader = GGUFReader(gguf_file)

    def field(name: str) -> object:
        entry = reader.get_field(name)
        if entry is None:
            raise ConversionError(f"{gguf_file.name} lacks the metadata field {name!r}")
        return entry.contents()

    if field("tokenizer.ggml.pre") != "smollm":
        raise ConversionError(f"tokenizer {field('tokenizer.ggml.pre')!r}: only 'smollm' is known")
    tensors = {huggingface_name(tensor.name): tensor for tensor in reader.tensors}
    config = model_config(field, tied="lm_head.weight" not in tensors)
    tokens = field("tokenizer.ggml.tokens")
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}

    _write_weights(directory / "model.safetensors", tensors, config, progress)
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", special)
    _write_json(directory / "tokenizer_config.json", tokenizer_config(field, tokens))
    tokenizer = build_tokenizer(
        tokens, field("tokenizer.ggml.token_type"), field("tokenizer.ggml.merges"))
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)


def _write_weights(path: Path, tensors: dict, config: dict, progress) -> None:
    heads_of = {
        "q_proj.weight": config["num_attention_heads"],
        "k_proj.weight": config["num_key_value_heads"],
    }

    def rounded():
        for done, (name, tensor) in enumerate(tensors.items(), start=1):
            values = dequantize(tensor.data, tensor.tensor_type)
            heads = heads_of.get(".".join(name.split(".")[-2:]))
            if heads is not None:
                values = unpermute_rotary(values, heads)
            yield name, to_bfloat16(values)
            progress(done, len(tensors))

    # GGUF lists dimensions from the innermost outwards.
    shapes = {name: tuple(map(int, reversed(given.shape))) for name, given in tensors.items()}
    write_bfloat16_safetensors(path, shapes, rounded())


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
