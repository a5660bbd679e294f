"""A fleet's process that is not as it should be."""

from pathlib import Path

import pytest
from muster.fleet_process import FleetError, FleetOptions, FleetProcess


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Makes a musterctl that runs a line of shell."""

    def write(line: str) -> None:
        program = tmp_path / "musterctl"
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        monkeypatch.setenv("MUSTER_BIN_DIR", str(tmp_path))

    return write


@pytest.mark.parametrize("line", ["printf '{\"event\": \"ser'", "printf '\\377\\n'", "true"])
def test_an_end_in_the_middle_of_a_line_is_an_end(stub, line):
    stub(line)
    with FleetProcess(FleetOptions(Path("model"))) as fleet:
        with pytest.raises(FleetError, match="ended with status 0"):
            fleet.await_event("serving", timeout=30)


def test_only_what_was_asked_for_is_handed_on():
    plain = FleetOptions(Path("m")).arguments()
    assert not {"--device", "--oversubscribe", "--load-format", "--memory-fraction"} & set(plain)
    words = FleetOptions(Path("m"), device="cuda", oversubscribe=4, load_format="dummy",
                         memory_fraction=0.5).arguments()
    given = dict(zip(words[::2], words[1::2]))
    assert (given["--device"], given["--oversubscribe"]) == ("cuda", "4")
    assert (given["--load-format"], given["--memory-fraction"]) == ("dummy", "0.5")
