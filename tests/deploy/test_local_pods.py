"""The objects of cpu-demo serve, as pods in the image's root file system."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from image import Image, build_image
from run_pods import missing

_SCRIPT = Path(__file__).with_name("run_pods.py")
_PATIENCE = 90


@pytest.fixture(scope="module")
def image() -> Image:
    if reason := missing():
        pytest.skip(reason)
    return build_image()


def _run(image: Image, *words: str) -> dict:
    """What the script reports."""
    result = subprocess.run(
        [sys.executable, str(_SCRIPT), "--json", "--image", str(image.root), *words],
        capture_output=True, text=True, timeout=_PATIENCE, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def report(image) -> dict:
    return _run(image)


def test_a_forward_through_mtls_gives_the_models_tokens(report):
    assert report["forward"] == [report["expected"]]


def test_the_admin_port_answers_probes_by_http(report):
    assert report["probe"][-1] == "readyz check passed"
    assert "[+]drain: this worker stays" in report["probe"]


def test_whoever_has_no_certificate_or_not_the_role_is_refused(report):
    scheduler, stranger = report["refused"]
    assert "may not call muster.v1.Fleet.ScaleContextParallel" in scheduler
    assert "expects TLS" in stranger


def test_the_job_makes_the_standbys_serve(report):
    assert any("cp 2 → 4" in line for line in report["scale-cp"])
    assert report["forward again"] == report["expected"]


def test_containers_are_as_restricted_as_the_yaml_says(report):
    for container in report["confinement"].values():
        assert container["user"] == "65532"
        assert int(container["capabilities"], 16) == 0
        assert container["no_new_privileges"] == "1"
        assert container["root"] == "ro"


def test_a_pod_shares_namespaces_and_different_pods_do_not(report):
    workers = [it for name, it in report["confinement"].items() if "worker" in name]
    [coordinator] = [it for name, it in report["confinement"].items() if "coordinator" in name]
    assert len(workers) == 4
    for space in ("pid", "net", "ipc"):
        assert len({it[space] for it in workers}) == 1
        assert workers[0][space] != coordinator[space]
    assert len({it["mnt"] for it in [*workers, coordinator]}) == 5


def test_sigterm_ends_every_container_in_order(report):
    assert len(report["SIGTERM"]) == 5
    assert set(report["SIGTERM"].values()) == {0}


def test_another_pod_is_another_replica(image):
    report = _run(image, "--pods", "2")
    assert report["forward"] == [report["expected"]] * 2
    assert len(report["SIGTERM"]) == 9
