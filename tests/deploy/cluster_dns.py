"""Answers as a cluster's DNS does: Services and pods by name, over IPv4 alone (RFC 1035)."""

import socket
import struct
import threading

_DOMAIN = "muster.svc.cluster.local"
# What the kubelet writes into pods.
SEARCH = f"search {_DOMAIN} svc.cluster.local cluster.local\noptions ndots:5\n"

_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583  # authoritative, recursion available
_TYPE_A, _CLASS_IN = 1, 1
_SECONDS = 5


class ClusterDns:
    """A server in a thread of its own, which ends with the process.

    Args:
      host: the address to listen on, at port 53.
    """

    def __init__(self, host: str):
        self._addresses: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 53))
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, name: str, address: str) -> None:
        """Names something of the namespace: a Service, or a pod below its Service."""
        self._addresses[f"{name}.{_DOMAIN}"] = address

    def _run(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        name, end = _read_name(query)
        kind, _ = struct.unpack_from("!HH", query, end)
        address = self._addresses.get(name.lower())
        records = b""
        if address is not None and kind == _TYPE_A:
            # The name is that of the question, 12 bytes into the message.
            records = struct.pack("!HHHIH", 0xC00C, _TYPE_A, _CLASS_IN, _SECONDS, 4)
            records += socket.inet_aton(address)
        flags = _NO_SUCH_NAME if address is None else _ANSWER
        head = query[:2] + struct.pack("!HHHHH", flags, 1, 1 if records else 0, 0, 0)
        return head + query[12:end + 4] + records


def _read_name(query: bytes) -> tuple[str, int]:
    """Of the question, and where it ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1:at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), at + 1
