"""The numpy oracle agrees with the goldens, which transformers made of the same directories."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from decoder_numpy import Decoder, read_safetensors

_GOLDENS = Path(__file__).parents[1] / "testdata" / "goldens"
_MODELS = sorted(path.parent.name for path in _GOLDENS.glob("*/golden.json"))


@pytest.fixture(params=_MODELS)
def directory(request) -> Path:
    return _GOLDENS / request.param


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, in units of the root mean square of its expected row."""
    scale = np.sqrt(np.mean(expected**2, axis=-1, keepdims=True))
    return float((np.abs(actual - expected) / scale).max())


def test_all_models_are_there():
    assert _MODELS == [
        "llama-bias", "llama-dynamic", "llama-gqa6", "llama-gqa8", "llama-linear", "llama-mha12",
        "llama-mqa12", "llama-yarn", "mistral", "qwen2", "qwen3",
    ]


def test_logits_of_prompt_and_of_every_step_agree(directory):
    golden = json.loads((directory / "golden.json").read_text())
    expected = read_safetensors(directory / "golden.safetensors")
    model = Decoder(directory)
    assert relative_error(model.forward(golden["prompt"]), expected["prompt_logits"]) < 1e-4
    steps = [model.forward([token]) for token in golden["tokens"][:-1]]
    assert relative_error(np.concatenate(steps), expected["logits"][1:]) < 1e-4


def test_greedy_tokens_agree(directory):
    golden = json.loads((directory / "golden.json").read_text())
    tokens = Decoder(directory).generate(golden["prompt"], len(golden["tokens"]))
    assert tokens == golden["tokens"]


def test_margin_leaves_room_for_rounding_and_the_first_token_is_not_forgotten(directory):
    golden = json.loads((directory / "golden.json").read_text())
    logits = np.sort(read_safetensors(directory / "golden.safetensors")["logits"], axis=-1)
    assert (logits[:, -1] - logits[:, -2]).min() == pytest.approx(golden["min_margin"], abs=1e-4)
    assert golden["min_margin"] > 0.1
    # Two layers of Mistral see back two windows, which is less than the text.
    assert golden["sensitivity"] > 1e-2 or directory.name == "mistral"


@pytest.mark.parametrize("name, key", [
    ("llama-gqa8", "rope_parameters"),
    ("llama-gqa6", "rope_scaling"),
])
def test_rope_scaling_of_either_config_form_decides_the_logits(tmp_path, name, key):
    prompt = json.loads((_GOLDENS / name / "golden.json").read_text())["prompt"]
    unscaled = tmp_path / name
    shutil.copytree(_GOLDENS / name, unscaled)
    config = json.loads((unscaled / "config.json").read_text())
    config[key]["rope_type"] = "default"
    (unscaled / "config.json").write_text(json.dumps(config))
    scaled = Decoder(_GOLDENS / name).forward(prompt)
    assert relative_error(Decoder(unscaled).forward(prompt), scaled) > 0.1
