"""What the end-to-end tests share: the programs, small models, and a look at what is left."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PROGRAMS, Browser, browser, find_browser
from fleets import MODELS, Programs, await_that
from wire import Daemons, daemons_of_a_module


@pytest.fixture(scope="module")
def daemons(tmp_path_factory) -> Daemons:
    """Daemons of a module, with their logs."""
    with daemons_of_a_module(tmp_path_factory.mktemp("daemons")) as daemons:
        yield daemons


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory) -> Iterator[Browser]:
    """One page of a headless browser, for all tests of a module."""
    program = find_browser()
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed")
    with browser(program, tmp_path_factory.mktemp("browser")) as it:
        yield it


@pytest.fixture
def page(shared_browser) -> Iterator[Browser]:
    """A page that must not complain, nor ask anybody else for anything."""
    shared_browser.events.clear()
    shared_browser.look(1400)
    yield shared_browser
    shared_browser.open("about:blank")
    assert shared_browser.complaints() == []
    strangers = [url for url in shared_browser.requests()
                 if not re.match(r"(http://127\.0\.0\.1:\d+/statusz(\.json)?$|about:|data:)", url)]
    assert strangers == []


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Programs:
    """The programs under test. Whatever they leave behind fails the test."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    mark = f"MUSTER_TEST_MARK={secrets.token_hex(8)}"
    monkeypatch.setenv(*mark.split("="))
    # The record of `musterctl up` lies here: tests at once do not meet in it.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("MUSTER_COORDINATOR", raising=False)
    segments = set(os.listdir("/dev/shm"))
    programs = Programs(mark)
    if not (programs.bin / "musterctl").exists():
        pytest.fail(f"{programs.bin} has no musterctl: run ./muster build, or set MUSTER_BIN_DIR")
    try:
        yield programs
    finally:
        programs.end()
    await_that(lambda: not programs.running(), "all processes are gone")
    assert set(os.listdir("/dev/shm")) <= segments
    assert not [path for path in runtime.rglob("*") if path.is_file()]


@pytest.fixture
def model_copy(tmp_path):
    """Makes a copy of a golden model that a test may damage."""

    def copy(name: str = "llama-mha12") -> Path:
        return Path(shutil.copytree(MODELS / name, tmp_path / name))

    return copy
