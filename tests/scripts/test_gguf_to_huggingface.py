"""The pieces of the conversion, and one whole tiny model through it."""

import json

import gguf
import numpy as np
import pytest
from decoder_numpy import read_safetensors
from gguf_to_huggingface import (
    ConversionError,
    build_tokenizer,
    convert,
    huggingface_name,
    to_bfloat16,
    unpermute_rotary,
    write_bfloat16_safetensors,
)

_SEED = 20240611


def float_of(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rotated_neighbours(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotary embedding as llama.cpp applies it: pairs (2i, 2i+1) of [heads, head_dim]."""
    even, odd = x[:, 0::2], x[:, 1::2]
    return np.stack(
        (even * np.cos(angle) - odd * np.sin(angle), odd * np.cos(angle) + even * np.sin(angle)),
        axis=-1).reshape(x.shape)


def rotated_halves(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotary embedding as Hugging Face applies it: pairs (i, i + head_dim/2)."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate(
        (first * np.cos(angle) - second * np.sin(angle),
         second * np.cos(angle) + first * np.sin(angle)), axis=-1)


def permuted_for_llama_cpp(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row 2i of a head is Hugging Face's row i, row 2i+1 its row i + head_dim/2."""
    dim = len(rows) // heads
    order = [h * dim + i + half * dim // 2
             for h in range(heads) for i in range(dim // 2) for half in (0, 1)]
    return rows[order]


def test_unpermuting_undoes_the_layout_of_llama_cpp():
    rows = np.arange(3 * 8 * 5, dtype=np.float32).reshape(24, 5)
    np.testing.assert_array_equal(unpermute_rotary(permuted_for_llama_cpp(rows, 3), 3), rows)


def test_scores_under_either_rotation_agree_after_unpermuting():
    random = np.random.default_rng(_SEED)
    heads, dim, hidden = 3, 8, 16
    q_rows = random.standard_normal((heads * dim, hidden))
    k_rows = random.standard_normal((heads * dim, hidden))
    x, y = random.standard_normal((2, hidden))
    frequency = 0.3 ** np.arange(dim // 2)

    def scores(rotate, q, k):
        return (rotate((q @ x).reshape(heads, dim), 11 * frequency)
                * rotate((k @ y).reshape(heads, dim), 4 * frequency)).sum(axis=-1)

    np.testing.assert_allclose(
        scores(rotated_halves, unpermute_rotary(q_rows, heads), unpermute_rotary(k_rows, heads)),
        scores(rotated_neighbours, q_rows, k_rows))


def test_rows_that_are_not_heads_of_pairs_are_refused():
    with pytest.raises(ConversionError, match="15 rows do not split into 3 heads"):
        unpermute_rotary(np.zeros((15, 4), np.float32), 3)


@pytest.mark.parametrize("value, rounded", [
    (1.0, 1.0),
    (-0.0, -0.0),
    (1 + 2**-8, 1.0),  # A tie: down to the even neighbour.
    (1 + 3 * 2**-8, 1 + 2**-6),  # A tie: up to the even neighbour.
    (1 + 2**-8 + 2**-20, 1 + 2**-7),
    (-(1 + 2**-8 + 2**-20), -(1 + 2**-7)),
    (3.4028235e38, np.inf),
    (-np.inf, -np.inf),
    (2.0**-133, 2.0**-133),  # A subnormal.
])
def test_bfloat16_is_the_nearest_ties_to_even(value, rounded):
    result = float_of(to_bfloat16(np.array([value], np.float32)))[0]
    assert result == rounded and np.signbit(result) == np.signbit(rounded)


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFC00000])
def test_nan_stays_nan_in_bfloat16(bits):
    assert np.isnan(float_of(to_bfloat16(np.array([bits], np.uint32).view(np.float32)))[0])


def test_bfloat16_is_no_further_than_either_neighbour():
    values = np.random.default_rng(_SEED).standard_normal(10_000).astype(np.float32)
    bits = to_bfloat16(values)
    distance = np.abs(float_of(bits) - values)
    assert (distance <= np.abs(float_of(bits + 1) - values)).all()
    assert (distance <= np.abs(float_of(bits - 1) - values)).all()


def test_safetensors_header_is_aligned_and_spans_are_contiguous(tmp_path):
    file = tmp_path / "model.safetensors"
    tensors = {"a": np.arange(6, dtype=np.uint16).reshape(2, 3), "b": np.array([7], np.uint16)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_bfloat16_safetensors(file, shapes, tensors.items())
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    assert length % 8 == 0
    assert header["a"] == {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
    assert header["b"] == {"dtype": "BF16", "shape": [1], "data_offsets": [12, 14]}
    assert content[8 + length:] == tensors["a"].tobytes() + tensors["b"].tobytes()


def test_safetensors_writer_refuses_what_was_not_announced(tmp_path):
    with pytest.raises(ConversionError, match="a .* was announced, b"):
        write_bfloat16_safetensors(
            tmp_path / "x", {"a": (1,)}, [("b", np.zeros(1, np.uint16))])


def test_names():
    assert huggingface_name("blk.12.attn_output.weight") == (
        "model.layers.12.self_attn.o_proj.weight")
    assert huggingface_name("output_norm.weight") == "model.norm.weight"
    with pytest.raises(ConversionError, match="ffn_gate_exps"):
        huggingface_name("blk.0.ffn_gate_exps.weight")


def tiny_vocabulary() -> tuple[list[str], list[int], list[str]]:
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Ġ", "a", "b", "1", "2", "ab", "Ġab",
              "12", "Ċ"]
    kinds = [3, 3, 3] + [1] * 9
    return tokens, kinds, ["a b", "Ġ ab", "1 2"]


def test_tokenizer_merges_letters_but_never_digits_and_knows_special_tokens():
    tokens, kinds, merges = tiny_vocabulary()
    tokenizer = build_tokenizer(tokens, kinds, merges)
    encoded = tokenizer.encode("<|im_start|>ab ab 12<|im_end|>\n")
    assert encoded.tokens == ["<|im_start|>", "ab", "Ġab", "Ġ", "1", "2", "<|im_end|>", "Ċ"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=True) == "ab ab 12\n"


def write_gguf(path, tensors: dict[str, np.ndarray], pre: str = "smollm") -> None:
    """A Llama of 1 layer, 2 heads, 1 KV head, head_dim 4, hidden 8, FFN 6."""
    tokens, kinds, merges = tiny_vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(6)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for role, index in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{role}_token_id")(index)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(_SEED)
    shapes = {"token_embd": (12, 8), "output_norm": (8,), "blk.0.attn_q": (8, 8),
              "blk.0.attn_k": (4, 8), "blk.0.attn_v": (4, 8), "blk.0.ffn_down": (8, 6)}
    # Multiples of 1/8 below 8 are exact in bf16.
    return {f"{name}.weight": random.integers(-63, 64, shape).astype(np.float32) / 8
            for name, shape in shapes.items()}


def test_whole_model_arrives_with_names_shapes_and_values(tmp_path):
    source = tiny_tensors()
    write_gguf(tmp_path / "tiny.gguf", source)
    seen = []
    convert(tmp_path / "tiny.gguf", tmp_path, lambda done, total: seen.append((done, total)))

    weights = read_safetensors(tmp_path / "model.safetensors")
    attention = "model.layers.0.self_attn"
    np.testing.assert_array_equal(
        weights["model.embed_tokens.weight"], source["token_embd.weight"])
    np.testing.assert_array_equal(
        weights["model.layers.0.mlp.down_proj.weight"], source["blk.0.ffn_down.weight"])
    np.testing.assert_array_equal(
        weights[f"{attention}.v_proj.weight"], source["blk.0.attn_v.weight"])
    for name, heads in (("q", 2), ("k", 1)):
        permuted = permuted_for_llama_cpp(weights[f"{attention}.{name}_proj.weight"], heads)
        np.testing.assert_array_equal(permuted, source[f"blk.0.attn_{name}.weight"])
    assert seen[-1] == (len(source), len(source))

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-5
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (2, 1)
    assert config["eos_token_id"] == 2
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"
    assert (tmp_path / "tokenizer.json").is_file()


def test_output_matrix_means_untied_embeddings(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny_tensors() | {"output.weight": np.ones((12, 8), "f4")})
    convert(tmp_path / "tiny.gguf", tmp_path, lambda done, total: None)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in read_safetensors(tmp_path / "model.safetensors")


def test_tokenizer_of_another_kind_is_refused(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny_tensors(), pre="llama-bpe")
    with pytest.raises(ConversionError, match="'llama-bpe': only 'smollm' is known"):
        convert(tmp_path / "tiny.gguf", tmp_path, lambda done, total: None)
