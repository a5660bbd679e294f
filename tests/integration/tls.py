"""Callers with certificates, and a fleet that takes no others."""

from dataclasses import dataclass, field
from pathlib import Path

import grpc
from certificates import Authority
from fleets import await_that
from proto.muster.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    inference_pb2_grpc,
    membership_pb2_grpc,
    rendezvous_pb2_grpc,
    worker_control_pb2_grpc,
)
from wire import CALL_SECONDS, Coordinator, Daemons


def credentials(folder: Path, trust: Path | None = None) -> grpc.ChannelCredentials:
    """Of the certificate in `folder`; trusts the authority in `trust`, or its own."""
    root = ((trust or folder) / "ca.crt").read_bytes()
    files = [(folder / name).read_bytes() for name in ("tls.key", "tls.crt")]
    return grpc.ssl_channel_credentials(root, *files)


def no_credentials(trust: Path) -> grpc.ChannelCredentials:
    """TLS all the same, but with no certificate to show."""
    return grpc.ssl_channel_credentials((trust / "ca.crt").read_bytes())


class Caller:
    """A connection of its own to one daemon, with every stub there is."""

    def __init__(self, address: str, role: str, shown: grpc.ChannelCredentials | None):
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.ssl_target_name_override", f"{role}.muster"),
        ]
        self.channel = (
            grpc.insecure_channel(address, options)
            if shown is None
            else grpc.secure_channel(address, shown, options)
        )
        self.fleet = fleet_pb2_grpc.FleetStub(self.channel)
        self.membership = membership_pb2_grpc.MembershipStub(self.channel)
        self.rendezvous = rendezvous_pb2_grpc.RendezvousStub(self.channel)
        self.control = worker_control_pb2_grpc.WorkerControlStub(self.channel)
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)

    def topology(self) -> fleet_pb2.GetTopologyResponse:
        return self.fleet.GetTopology(fleet_pb2.GetTopologyRequest(), timeout=CALL_SECONDS)


@dataclass
class TlsFleet:
    """A coordinator and its workers, with one authority, in a folder of their own."""

    daemons: Daemons
    folder: Path
    authority: Authority
    coordinator: Coordinator
    folders: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def start(cls, daemons: Daemons, folder: Path, cp: int, *words: str) -> "TlsFleet":
        """With workers w0 to w(cp - 1), which serve when this returns."""
        authority = Authority(folder / "authority")
        own = authority.issue("coordinator", folder / "coordinator")
        fleet = cls(daemons, folder, authority, daemons.coordinator(cp, "--tls", str(own)))
        fleet.folders["coordinator"] = own
        for rank in range(cp):
            fleet.worker(f"w{rank}", *words)
        operator = fleet.caller("operator")
        await_that(lambda: operator.topology().replicas[0].state == fleet_pb2.REPLICA_STATE_SERVING,
                   "the fleet serves")
        return fleet

    def worker(self, name: str, *words: str):
        return self.daemons.worker(self.coordinator, name,
                                   words=("--tls", str(self.of(f"worker/{name}")), *words))

    def of(self, name: str) -> Path:
        """The folder with the certificate of `name`, e.g. "scheduler/chat"."""
        if name not in self.folders:
            self.folders[name] = self.authority.issue(name, self.folder / name.replace("/", "-"))
        return self.folders[name]

    def caller(self, name: str) -> Caller:
        """Of the coordinator."""
        return Caller(self.coordinator.address, "coordinator", credentials(self.of(name)))

    @property
    def leader(self) -> str:
        return self.caller("operator").topology().replicas[0].topology.ranks[0].address

    def caller_of_leader(self, name: str) -> Caller:
        return Caller(self.leader, "worker", credentials(self.of(name)))
