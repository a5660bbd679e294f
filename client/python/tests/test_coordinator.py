"""Where the coordinator is looked for."""

import pytest
from muster.coordinator import FleetAddress, find_fleet
from muster.errors import MusterError


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MUSTER_COORDINATOR", raising=False)
    monkeypatch.delenv("MUSTER_TLS", raising=False)
    return tmp_path


def record(runtime, address: str = "127.0.0.1:7", tls: str = "") -> None:
    (runtime / "muster").mkdir(mode=0o700)
    (runtime / "muster" / "coordinator").write_text(f"{address}\n{tls}\n")


def test_the_last_fleet_started_here_is_found_by_its_record(runtime):
    record(runtime)
    assert find_fleet() == FleetAddress("127.0.0.1:7")


def test_the_environment_comes_before_the_record_and_a_name_before_both(runtime, monkeypatch):
    record(runtime)
    monkeypatch.setenv("MUSTER_COORDINATOR", "host:8")
    assert find_fleet().coordinator == "host:8"
    assert find_fleet("host:9").coordinator == "host:9"


def test_a_record_has_the_folder_of_a_fleet_with_tls(runtime):
    record(runtime, tls="/a folder")
    assert find_fleet() == FleetAddress("127.0.0.1:7", "/a folder")


def test_the_variable_comes_before_the_recorded_folder_and_an_argument_before_both(
        runtime, monkeypatch):
    record(runtime, tls="/recorded")
    monkeypatch.setenv("MUSTER_TLS", "/variable")
    assert find_fleet().tls == "/variable"
    assert find_fleet(tls="/argument").tls == "/argument"


def test_a_fleet_that_is_named_has_no_folder_of_the_record(runtime):
    record(runtime, tls="/recorded")
    assert find_fleet("host:9") == FleetAddress("host:9")


def test_where_none_is_known_it_says_what_to_do():
    with pytest.raises(MusterError, match="musterctl up.*--coordinator HOST:PORT"):
        find_fleet()


def test_a_record_that_others_could_write_is_passed_over(runtime):
    record(runtime)
    (runtime / "muster").chmod(0o777)
    with pytest.raises(MusterError):
        find_fleet()
