"""The model that is used where no other is named."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

_SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


class DemoModelError(Exception):
    """The model cannot be had; the text tells a person why and what to do."""


def demo_model(say: Callable[[str], None]) -> Path:
    """Its directory in the user's cache, fetched if it is not there.

    Args:
      say: is given lines for people.
    """
    if str(_SCRIPTS) not in sys.path:
        sys.path.insert(0, str(_SCRIPTS))
    fetching = importlib.import_module("fetch_demo_model")
    try:
        return Path(fetching.ensure_demo_model(say=say))
    except fetching.DemoModelError as error:
        raise DemoModelError(str(error)) from None
