"""A client that says nothing loses its sequences: one that has nothing to say says that it lives."""

import threading
from collections.abc import Callable

from muster.errors import MusterError


def renewal_interval(lease_s: float) -> float:
    """Seconds between two signs of life: one may be lost, and the next still be in time."""
    return lease_s / 3


class LeaseKeeper:
    """Renews a lease from a thread of its own."""

    def __init__(self, renew: Callable[[], None]):
        """
        Args:
          renew: any call that names the client. A MusterError of it is passed over.
        """
        self._renew = renew
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, lease_s: float) -> None:
        """Does nothing if it has been started, or if there is no lease (0)."""
        with self._lock:
            if self._thread is not None or lease_s <= 0 or self._stopped.is_set():
                return
            self._thread = threading.Thread(
                target=self._run, args=(renewal_interval(lease_s),), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, interval: float) -> None:
        while not self._stopped.wait(interval):
            try:
                self._renew()
            except (MusterError, ValueError):  # ValueError: the channel is closed.
                pass
