"""Where the coordinator is looked for."""

import pytest
from muster.coordinator import find_coordinator
from muster.errors import MusterError


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MUSTER_COORDINATOR", raising=False)
    return tmp_path


def record(runtime, address: str = "127.0.0.1:7") -> None:
    (runtime / "muster").mkdir(mode=0o700)
    (runtime / "muster" / "coordinator").write_text(address + "\n")


def test_the_last_fleet_started_here_is_found_by_its_record(runtime):
    record(runtime)
    assert find_coordinator() == "127.0.0.1:7"


def test_the_environment_comes_before_the_record_and_a_name_before_both(runtime, monkeypatch):
    record(runtime)
    monkeypatch.setenv("MUSTER_COORDINATOR", "host:8")
    assert find_coordinator() == "host:8"
    assert find_coordinator("host:9") == "host:9"


def test_where_none_is_known_it_says_what_to_do():
    with pytest.raises(MusterError, match="musterctl up.*--coordinator HOST:PORT"):
        find_coordinator()


def test_a_record_that_others_could_write_is_passed_over(runtime):
    record(runtime)
    (runtime / "muster").chmod(0o777)
    with pytest.raises(MusterError):
        find_coordinator()
