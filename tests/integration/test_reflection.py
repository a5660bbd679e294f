"""What docs/contract.md says, done: every message of it is sent as it stands there, by a program
that has nothing but the daemons' own description of their services."""

import json
import math
import os
import re
import subprocess
import sys

import grpc
import pytest
from fleets import REPOSITORY, golden
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from wire import CALL_SECONDS, daemons_of_a_module

DOCUMENT = (REPOSITORY / "docs" / "contract.md").read_text()
BLOCKS = re.findall(r"^```(.*)\n((?:.*\n)*?)^```$", DOCUMENT, re.MULTILINE)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with daemons_of_a_module(tmp_path_factory.mktemp("reflection")) as daemons:
        yield daemons.serving_fleet()


class Described:
    """A daemon's services, as it describes them."""

    def __init__(self, address: str):
        self._channel = grpc.insecure_channel(address)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def call(self, service: str, method: str, request: dict) -> dict:
        """The answer to a request, both in protobuf's JSON."""
        described = self._pool.FindServiceByName(f"muster.v1.{service}").FindMethodByName(method)
        request_type = message_factory.GetMessageClass(described.input_type)
        response_type = message_factory.GetMessageClass(described.output_type)
        call = self._channel.unary_unary(
            f"/muster.v1.{service}/{method}", request_type.SerializeToString,
            response_type.FromString)
        response = call(json_format.ParseDict(request, request_type()), timeout=CALL_SECONDS)
        return json_format.MessageToDict(response)


def assert_shown(shown, actual, where: str) -> None:
    """All that is shown is there; what is not shown may be anything."""
    if isinstance(shown, dict):
        for name, value in shown.items():
            assert name in actual, f"{where}.{name}"
            assert_shown(value, actual[name], f"{where}.{name}")
    elif isinstance(shown, list):
        assert len(shown) == len(actual), where
        for i, value in enumerate(shown):
            assert_shown(value, actual[i], f"{where}[{i}]")
    elif isinstance(shown, float):
        assert math.isclose(shown, actual, abs_tol=1e-3), where
    else:
        assert shown == actual, where


def exchanges() -> list[tuple[str, str, dict, dict]]:
    """Service, method, request and answer, in the order of the document."""
    found = []
    for (kind, request), (next_kind, answer) in zip(BLOCKS, BLOCKS[1:], strict=False):
        if kind.startswith("json request "):
            assert next_kind == "json answer", f"no answer to {request}"
            service, method = kind.split()[2].split(".")
            found.append((service, method, json.loads(request), json.loads(answer)))
    return found


def test_the_document_shows_the_whole_exchange():
    methods = [method for _, method, _, _ in exchanges()]
    assert methods[:5] == ["GetTopology", "GetModel", "Forward", "Forward", "FreeSequences"]
    assert len(methods) == sum(kind.startswith("json request") for kind, _ in BLOCKS)


def test_every_message_of_the_document_gets_the_answer_that_stands_there(fleet):
    coordinator = Described(fleet.coordinator.address)
    assert {"muster.v1.Fleet", "muster.v1.Rendezvous"} <= coordinator.services()
    topology = coordinator.call("Fleet", "GetTopology", {})["replicas"][0]["topology"]
    leader = Described(topology["ranks"][0]["address"])
    assert {"muster.v1.Inference", "grpc.health.v1.Health"} <= leader.services()
    for service, method, request, answer in exchanges():
        daemon = coordinator if service == "Fleet" else leader
        actual = daemon.call(service, method, request)
        assert_shown(answer, actual, f"{method} of {json.dumps(request)}: answer")
    assert leader.call("Inference", "FreeSequences", {"clientId": "docs", "all": True}) == {
        "freed": 3}


def test_the_example_needs_no_file_of_the_repository(fleet):
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    facts = golden("llama-mha12")
    leader = fleet.coordinator.replica().topology.ranks[0].address
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-I", "-c", example, leader, *map(str, facts["prompt"])], cwd="/",
        env=bare, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == facts["tokens"][0]
