"""Model directories that cannot be used: one line that says why, status 1, nothing left."""

import json
import struct
from pathlib import Path

import pytest
from fleets import assert_one_line


def read_header(directory: Path) -> tuple[dict, bytes]:
    """The header of model.safetensors, and the bytes after it."""
    content = (directory / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + length]), content[8 + length:]


def write_header(directory: Path, header: dict, data: bytes, length: int | None = None) -> None:
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text) if length is None else length) + text + data)


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def not_json(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def strange_architecture(directory: Path) -> None:
    edit_config(directory, architectures=["GPT2LMHeadModel"], model_type="gpt2")


def no_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def truncated(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def holed(directory: Path) -> None:
    header, data = read_header(directory)
    last = max((name for name in header if name != "__metadata__"),
               key=lambda name: header[name]["data_offsets"][0])
    header[last]["data_offsets"] = [offset + 8 for offset in header[last]["data_offsets"]]
    write_header(directory, header, data + bytes(8))


def overlapping(directory: Path) -> None:
    header, data = read_header(directory)
    header["extra"] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    write_header(directory, header, data)


def header_beyond_the_file(directory: Path) -> None:
    header, data = read_header(directory)
    write_header(directory, header, data, length=1 << 40)


def missing_tensor(directory: Path) -> None:
    header, data = read_header(directory)
    header["a.stranger"] = header.pop("model.norm.weight")
    write_header(directory, header, data)


def strange_shape(directory: Path) -> None:
    edit_config(directory, intermediate_size=131)


@pytest.mark.parametrize("damage, parts", [
    (no_config, ["config.json"]),
    (not_json, ["config.json"]),
    (strange_architecture, ["GPT2LMHeadModel", "LlamaForCausalLM"]),
    (no_weights, ["safetensors"]),
    (truncated, ["model.safetensors"]),
    (holed, ["model.safetensors"]),
    (overlapping, ["model.safetensors"]),
    (header_beyond_the_file, ["model.safetensors", "1099511627776"]),
    (missing_tensor, ["model.norm.weight"]),
    (strange_shape, ["131"]),
])
def test_a_damaged_directory_is_refused_in_one_line(programs, model_copy, damage, parts):
    directory = model_copy("llama-mha12")
    damage(directory)
    result = programs.demo("--model", str(directory), "--prompt-tokens", "1,2,3")
    assert_one_line(result, *parts)


def test_a_missing_directory_is_named(programs, tmp_path):
    missing = tmp_path / "nowhere"
    assert_one_line(programs.demo("--model", str(missing)), str(missing))
    assert_one_line(programs.musterctl("up", "--model", str(missing)), str(missing))
