"""The forward pass of dense decoders in numpy and float32, as plainly as it can be written.

An oracle beside the transformers library: it needs nothing but numpy, and it reads the same
directories as the worker (config.json of either form, any number of safetensors files).
"""

import json
import math
from pathlib import Path

import numpy as np


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file, upcast to float32 where it is bf16 or fp16."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = _to_float32(content[begin:end], entry["dtype"]).reshape(entry["shape"])
    return tensors


def _to_float32(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)


def rope_frequencies(config: dict, head_dim: int, length: int) -> tuple[np.ndarray, float]:
    """Radians per position of each rotated pair [head_dim / 2], and the factor of cos and sin.

    `length`, of the text so far, counts for the dynamic kind alone.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rope.get("rope_type") or rope.get("type", "default")
    context = config["max_position_embeddings"]
    if kind == "dynamic" and length > context:
        stretch = rope["factor"] * length / context - rope["factor"] + 1
        theta *= stretch ** (head_dim / (head_dim - 2))
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if kind in ("default", "dynamic"):
        return frequencies, 1.0
    if kind == "linear":
        return frequencies / rope["factor"], 1.0
    if kind == "llama3":
        # Long wavelengths are stretched, short ones kept, those between interpolated.
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return (1 - kept) * frequencies / rope["factor"] + kept * frequencies, 1.0
    if kind == "yarn":
        return _yarn_frequencies(rope, frequencies, theta), 0.1 * math.log(rope["factor"]) + 1
    raise ValueError(f"rope type {kind!r}")


def _yarn_frequencies(rope: dict, frequencies: np.ndarray, theta: float) -> np.ndarray:
    """Pairs that turn often are kept, those that turn seldom stretched, with a ramp between."""
    head_dim = 2 * len(frequencies)
    original = rope["original_max_position_embeddings"]

    def pair(turns: float) -> float:
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair(rope.get("beta_fast", 32))), 0)
    last = min(math.ceil(pair(rope.get("beta_slow", 1))), head_dim - 1)
    ramp = np.clip((np.arange(len(frequencies)) - first) / (last - first), 0.0, 1.0)
    return frequencies * (1 - ramp) + frequencies / rope["factor"] * ramp


def window_of(config: dict, layer: int) -> int | None:
    """Positions that a row of the layer attends to, its own included; None for all."""
    if config["model_type"] == "llama" or not config.get("use_sliding_window", True):
        return None
    types = config.get("layer_types")
    return None if types and types[layer] == "full_attention" else config["sliding_window"]


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotates pairs (i, i + head_dim/2): x is [tokens, heads, head_dim], cos [tokens, dim/2]."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)


class Decoder:
    """A model and the keys and values of one sequence."""

    def __init__(self, directory: Path):
        self.config = json.loads((directory / "config.json").read_text())
        self._weights = {}
        for file in sorted(directory.glob("model*.safetensors")):
            self._weights |= read_safetensors(file)
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        self.head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads
        self._layers = self.config["num_hidden_layers"]
        self.reset()

    def reset(self) -> None:
        """Forgets the sequence."""
        empty = np.zeros((0, self.kv_heads, self.head_dim), np.float32)
        self._keys = [empty] * self._layers
        self._values = [empty] * self._layers

    def forward(self, tokens: list[int]) -> np.ndarray:
        """Appends tokens to the sequence; returns the logits after each: [tokens, vocabulary]."""
        start = len(self._keys[0])
        cos, sin = self._rotations(range(start, start + len(tokens)))
        embedding = self._weights["model.embed_tokens.weight"]
        x = embedding[tokens]
        for layer in range(self._layers):
            normed = self._norm(x, f"layers.{layer}.input_layernorm")
            x = x + self._attention(layer, normed, cos, sin)
            normed = self._norm(x, f"layers.{layer}.post_attention_layernorm")
            x = x + self._mlp(layer, normed)
        x = self._norm(x, "norm")
        return x @ self._weights.get("lm_head.weight", embedding).T

    def generate(self, prompt: list[int], limit: int, eos: set[int] = frozenset()) -> list[int]:
        """Greedy continuation of a fresh sequence; an end token is kept and ends it."""
        self.reset()
        generated: list[int] = []
        step = prompt
        while len(generated) < limit and not eos.intersection(generated[-1:]):
            step = [int(self.forward(step)[-1].argmax())]
            generated += step
        return generated

    def _rotations(self, positions: range) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin of the angles at these positions: [positions, head_dim / 2] each."""
        cos, sin = [], []
        for position in positions:
            frequencies, factor = rope_frequencies(self.config, self.head_dim, position + 1)
            cos.append(factor * np.cos(position * frequencies))
            sin.append(factor * np.sin(position * frequencies))
        return np.array(cos, np.float32), np.array(sin, np.float32)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return rms_norm(x, self._weights[f"model.{name}.weight"], self.config["rms_norm_eps"])

    def _linear(self, x: np.ndarray, layer: int, name: str) -> np.ndarray:
        name = f"model.layers.{layer}.{name}"
        return x @ self._weights[f"{name}.weight"].T + self._weights.get(f"{name}.bias", 0)

    def _heads(self, x: np.ndarray, layer: int, name: str) -> np.ndarray:
        """One of q, k and v, by heads, each normalised where the model does so."""
        heads = self._linear(x, layer, f"self_attn.{name}_proj").reshape(len(x), -1, self.head_dim)
        norm = f"layers.{layer}.self_attn.{name}_norm"
        return self._norm(heads, norm) if f"model.{norm}.weight" in self._weights else heads

    def _attention(self, layer: int, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        q = rotate(self._heads(x, layer, "q"), cos, sin)
        k = rotate(self._heads(x, layer, "k"), cos, sin)
        v = self._heads(x, layer, "v")
        self._keys[layer] = np.concatenate((self._keys[layer], k))
        self._values[layer] = np.concatenate((self._values[layer], v))
        keys = np.repeat(self._keys[layer], self.heads // self.kv_heads, axis=1)
        values = np.repeat(self._values[layer], self.heads // self.kv_heads, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, keys) / math.sqrt(self.head_dim)
        rows, columns = scores.shape[1:]
        distance = np.arange(columns - rows, columns)[:, None] - np.arange(columns)
        window = window_of(self.config, layer) or columns
        scores = np.where((distance < 0) | (distance >= window), -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, values).reshape(len(x), -1)
        return self._linear(mixed, layer, "self_attn.o_proj")

    def _mlp(self, layer: int, x: np.ndarray) -> np.ndarray:
        gate = self._linear(x, layer, "mlp.gate_proj")
        up = self._linear(x, layer, "mlp.up_proj")
        return self._linear(gate / (1 + np.exp(-gate)) * up, layer, "mlp.down_proj")
