"""Small random models of every architecture: the logits of muster-worker beside transformers'.

A model is made, saved, and served from its directory. transformers in double precision, with norms
and rotations in float32, says what is right. In float32 the worker's error is held against what
rounding may cost; in bfloat16, against the error that transformers makes itself.
"""

import math
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from gpu_fleet import PATIENCE, fleet
from muster.client import Fleet
from muster.values import Slice

transformers.utils.logging.disable_progress_bar()

DEVICE = "cuda"
_PROMPT = 131
_FORCED = 12
_FLOAT32_EPSILON = 2.0 ** -23
# Errors of rounding add up like a walk over the sums of a layer; this is room for its constant.
_ROOM = 2.0
# The worker's error in bfloat16, of that which transformers makes.
_OF_TRANSFORMERS = 1.5

_COMMON = {
    "vocab_size": 1009, "hidden_size": 512, "intermediate_size": 1152, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

# Name: (configuration class, changes of _COMMON).
MODELS = {
    "llama": (transformers.LlamaConfig, {}),
    "llama-tied-llama3": (transformers.LlamaConfig, {
        "tie_word_embeddings": True, "rope_parameters": _LLAMA3}),
    "llama-odd": (transformers.LlamaConfig, {
        "num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 384,
        "intermediate_size": 1000}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None, "head_dim": 128}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 128}),
}


def make_model(name: str, dtype: torch.dtype, folder: Path) -> None:
    """Saves a random model; its norms and biases are no ones and zeros."""
    kind, changes = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    config = kind(**(_COMMON | changes))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def load_model(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A saved model on the device, its arithmetic in `dtype`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(DEVICE).eval()


def logits_of(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """After the prompt and after each forced token, [1 + forced, vocabulary], in double."""
    ids = torch.tensor([tokens], device=DEVICE)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0]
    return logits[_PROMPT - 1:].double()


def served_logits(folder: Path, dtype: str, tokens: list[int], tp: int, cp: int) -> torch.Tensor:
    """The same from a fleet: one prefill, then a step for each forced token."""
    rows = []
    with fleet(folder, tp, cp, dtype=dtype) as process:
        serving = process.await_event("serving", PATIENCE)
        with Fleet(serving["coordinator"]) as client, client.replica(0) as replica:
            pieces = [tokens[:_PROMPT], *([token] for token in tokens[_PROMPT:])]
            position = 0
            for piece in pieces:
                step = replica.forward([Slice("s", piece, position, return_logits=True)])
                rows.append(step.outputs[0].logits)
                position += len(piece)
            replica.free("s")
    return torch.tensor(rows, dtype=torch.double, device=DEVICE)


def worst_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Of the rows, by their norm."""
    return float(((got - exact).norm(dim=1) / exact.norm(dim=1)).max())


@dataclass(frozen=True)
class Errors:
    """Of the worker and of transformers, against the same exact logits."""

    ours: float
    theirs: float
    bound: float  # of float32 arithmetic


def errors_of(name: str, dtype: torch.dtype, tp: int = 1, cp: int = 1) -> Errors:
    """Makes a model, has both run it, and prints how they did."""
    with tempfile.TemporaryDirectory() as folder:
        make_model(name, dtype, Path(folder))
        model = load_model(Path(folder), dtype)
        config = model.config
        generator = torch.Generator().manual_seed(7)
        tokens = torch.randint(
            3, config.vocab_size, (_PROMPT + _FORCED,), generator=generator).tolist()
        exact = logits_of(load_model(Path(folder), torch.float64), tokens)
        theirs = worst_error(logits_of(model, tokens), exact)
        ours = worst_error(served_logits(
            Path(folder), str(dtype).removeprefix("torch."), tokens, tp, cp), exact)
    bound = _ROOM * _FLOAT32_EPSILON * math.sqrt(config.num_hidden_layers * config.hidden_size)
    print(f"    {name} {dtype} tp={tp} cp={cp}: error {ours:.2e}, transformers {theirs:.2e}, "
          f"bound in float32 {bound:.2e}", flush=True)
    return Errors(ours, theirs, bound)


class Logits(unittest.TestCase):
    """Every architecture at one rank, and one of them split."""

    def test_float32_errs_by_rounding_only(self) -> None:
        for name in MODELS:
            with self.subTest(model=name):
                errors = errors_of(name, torch.float32)
                self.assertLess(errors.ours, errors.bound)

    def test_bfloat16_errs_no_more_than_transformers(self) -> None:
        for name in MODELS:
            with self.subTest(model=name):
                errors = errors_of(name, torch.bfloat16)
                self.assertLess(errors.ours, _OF_TRANSFORMERS * errors.theirs)

    def test_a_split_model_errs_no_more(self) -> None:
        for tp, cp in ((2, 1), (1, 2), (2, 2)):
            with self.subTest(tp=tp, cp=cp):
                errors = errors_of("llama", torch.bfloat16, tp, cp)
                self.assertLess(errors.ours, _OF_TRANSFORMERS * errors.theirs)


if __name__ == "__main__":
    unittest.main()
