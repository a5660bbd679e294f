"""How daemons are reached: in plaintext, or by TLS with the certificate in a folder."""

import os
from pathlib import Path

import grpc
from muster import methods
from muster.errors import MusterError

# DNS names that are in the certificates of all daemons of a kind, wherever they listen.
COORDINATOR = "coordinator.muster"
WORKER = "worker.muster"

_CERTIFICATE, _KEY, _AUTHORITY = "tls.crt", "tls.key", "ca.crt"
_PEM_BEGINNINGS = {_CERTIFICATE: "CERTIFICATE", _KEY: "PRIVATE KEY", _AUTHORITY: "CERTIFICATE"}

# So gRPC names what bounds an attempt to connect; the pauses between attempts are others. On a busy
# machine a handshake takes its time.
_CONNECT_LIMIT, _CONNECT_MS = "grpc.min_reconnect_backoff_ms", 5_000

# Of a client's arguments; None leaves it to $MUSTER_TLS.
TlsFolder = str | os.PathLike[str] | None


def find_tls(named: TlsFolder) -> str:
    """The folder as named, or as in $MUSTER_TLS; "" for plaintext."""
    return os.fspath(named) if named is not None else os.environ.get("MUSTER_TLS", "")


class Tls:
    """Credentials for daemons of one kind, read anew for every channel.

    A folder has tls.crt (the certificate, and those between it and its authority), tls.key and
    ca.crt, as a Kubernetes secret of cert-manager has them.
    """

    def __init__(self, folder: str, server: str):
        """
        Args:
          folder: "" for plaintext.
          server: COORDINATOR or WORKER.
        """
        self.folder = folder
        self._server = server
        self._read: tuple[object, ...] = ()

    @property
    def options(self) -> list[tuple[str, int | str]]:
        """Of a channel."""
        if not self.folder:
            return [*methods.CHANNEL_OPTIONS]
        return [
            *(it for it in methods.CHANNEL_OPTIONS if it[0] != _CONNECT_LIMIT),
            (_CONNECT_LIMIT, _CONNECT_MS), ("grpc.ssl_target_name_override", self._server)]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a new channel; None for plaintext.

        Raises:
          MusterError: a file is missing, cannot be read or holds something else.
        """
        if not self.folder:
            return None
        before = self._stamp()
        # Replaced meanwhile, certificate and key would not fit each other.
        while True:
            certificate, key, authority = map(
                self._content, (_CERTIFICATE, _KEY, _AUTHORITY))
            after = self._stamp()
            if after == before:
                break
            before = after
        self._read = after
        return grpc.ssl_channel_credentials(authority, key, certificate)

    def replaced(self) -> bool:
        """Whether the files are others than those that `credentials` has read."""
        return bool(self.folder) and self._stamp() != self._read

    def explain(self, details: str, address: str) -> MusterError | None:
        """Why no connection was made, from gRPC's words, where it is a matter of TLS."""
        if "failed to connect" not in details:
            return None
        if not self.folder:
            # A server that is just ending hangs up in the same way.
            return MusterError(
                f"{address} hangs up on plaintext: if it expects TLS, give tls=DIR (--tls DIR, or "
                "MUSTER_TLS), a folder with tls.crt, tls.key and ca.crt", "UNAVAILABLE",
                retriable=True) if "Socket closed" in details else None
        if "WRONG_VERSION_NUMBER" in details:
            return MusterError(
                f"{address} does not speak TLS: leave tls={self.folder} (--tls, MUSTER_TLS) out, "
                "or start its daemon with --tls", "UNAVAILABLE")
        of_certificates = ("CERTIFICATE_VERIFY_FAILED", "not in peer certificate", "Socket closed",
                           "handshake failed", "Connection reset")
        if not any(words in details for words in of_certificates):
            return None
        return MusterError(
            f"{address} and the certificate in {self.folder} do not accept each other: both must "
            f"be valid, of one authority, and the daemon's for {self._server} "
            f"(musterctl certs show {self.folder})", "UNAVAILABLE", retriable=self.replaced())

    def _content(self, name: str) -> bytes:
        path = Path(self.folder, name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MusterError(
                f"cannot read {path}: {error.strerror}; tls={self.folder} is to be a folder with "
                "tls.crt, tls.key and ca.crt (musterctl certs issue makes one)",
                "NOT_FOUND" if isinstance(error, FileNotFoundError) else "PERMISSION_DENIED",
            ) from None
        if f"{_PEM_BEGINNINGS[name]}-----".encode() not in content:
            raise MusterError(f"{path} holds no {_PEM_BEGINNINGS[name].lower()} in PEM",
                              "INVALID_ARGUMENT")
        return content

    def _stamp(self) -> tuple[object, ...]:
        stamp: list[object] = []
        for name in (_CERTIFICATE, _KEY, _AUTHORITY):
            try:
                facts = os.stat(Path(self.folder, name))
            except OSError:
                stamp.append(None)
                continue
            stamp.append((facts.st_mtime_ns, facts.st_ino, facts.st_size))
        return tuple(stamp)


PLAINTEXT = Tls("", WORKER)
