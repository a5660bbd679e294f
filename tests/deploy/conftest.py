"""Lets the tests of deploy/ import the scripts, and start fleets as the end-to-end tests do."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "scripts"), str(_ROOT / "tests" / "integration")]
