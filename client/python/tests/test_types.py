"""The package is typed, strictly."""

import subprocess
import sys
from pathlib import Path

from proto.muster.v1 import inference_pb2

_CONFIG = Path(__file__).resolve().parents[1] / "mypy.ini"


def test_mypy_finds_nothing_in_its_strict_mode():
    stubs = Path(inference_pb2.__file__).with_suffix(".pyi")
    assert stubs.exists(), f"{stubs} is missing: ./muster build makes it"
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(_CONFIG)],
        cwd=_CONFIG.parent, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_package_says_that_it_is_typed():
    assert (_CONFIG.parent / "muster" / "py.typed").exists()
