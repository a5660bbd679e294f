"""Lets the tests of the scripts import them, and the numpy oracle."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "scripts"), str(_ROOT / "tests" / "reference")]
