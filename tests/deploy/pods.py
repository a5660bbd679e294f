"""Pods as a cluster gives them: namespaces, addresses, names, volumes, containers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster_dns import SEARCH
from probes import ContainerProbes
from rendered import Object, Objects, environment, expand
from volumes import VolumeSources, make_volume

_ENTER = Path(__file__).with_name("enter_container.py")
_BRIDGE = "pods"
_NETWORK = "10.88.0"
GATEWAY = f"{_NETWORK}.1"


def _run(*words: object) -> None:
    subprocess.run([str(it) for it in words], check=True)


def _children(pid: int) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        if int(stat.rpartition(") ")[2].split()[1]) == pid:
            found.append(int(entry))
    return found


def make_bridge() -> None:
    """Between all pods of this network namespace."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{GATEWAY}/24", "dev", _BRIDGE)
    _run("ip", "link", "set", _BRIDGE, "up")


@dataclass(frozen=True)
class Site:
    """What pods share: a folder to work in, the image, the objects, what volumes are of."""

    directory: Path
    image: Path
    objects: Objects
    sources: VolumeSources


class Sandbox:
    """The namespaces of one pod, held by a process of its own, and its place in the network."""

    def __init__(self, name: str, number: int):
        self.address = f"{_NETWORK}.{number}"
        self._outer = subprocess.Popen(
            ["unshare", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c",
             'hostname "$0" && exec sleep infinity', name])
        while not (held := _children(self._outer.pid)):
            time.sleep(0.005)
        self.pid = held[0]
        self._connect(f"pod{number}")

    def _connect(self, link: str) -> None:
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        _run("ip", "link", "set", link, "master", _BRIDGE, "up")
        for words in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up"),
                      ("address", "add", f"{self.address}/24", "dev", "eth0")):
            _run("nsenter", "--target", self.pid, "--net", "ip", *words)

    def end(self) -> None:
        self._outer.kill()  # SIGTERM it leaves to its child
        self._outer.wait()


class Container:
    """A process in a root file system of its own, and its probes.

    Args:
      spec: as it stands in the pod.
      pod: the pod it is of.
      folders: of the pod's volumes, by name.
    """

    def __init__(self, spec: Object, pod: "Pod", folders: dict[str, Path]):
        self.name = f"{pod.name}/{spec['name']}"
        self.log = pod.directory / f"{spec['name']}.log"
        self.failure = ""
        self._spec = spec
        self._root = pod.directory / spec["name"]
        subprocess.run(["cp", "-al", str(pod.site.image), str(self._root)], check=True)
        specification = pod.directory / f"{spec['name']}.json"
        specification.write_text(json.dumps(self._specification(pod, folders)))
        shared = pod.spec.get("shareProcessNamespace", False)
        own = ["--pid", "--fork", "--kill-child"] if not shared else []
        with self.log.open("wb") as log:
            self._outer = subprocess.Popen(
                ["nsenter", "--target", str(pod.sandbox.pid), "--net", "--ipc", "--uts",
                 *(["--pid"] if shared else []), "unshare", "--mount", *own, sys.executable, "-I",
                 str(_ENTER), str(specification)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT)
        self.probes = (ContainerProbes(spec, pod.sandbox.address, self._fail)
                       if "livenessProbe" in spec else None)

    def _specification(self, pod: "Pod", folders: dict[str, Path]) -> Object:
        context, mine = pod.spec["securityContext"], self._spec["securityContext"]
        mounts = [{"source": str(folders[it["name"]]), "target": it["mountPath"],
                   "read_only": it.get("readOnly", False)} for it in self._spec["volumeMounts"]]
        mounts += [{"source": str(pod.directory / it), "target": f"/etc/{it}", "read_only": True}
                   for it in ("hosts", "resolv.conf")]
        values = environment(self._spec, pod.site.objects, {
            "metadata.name": pod.name, "status.podIP": pod.sandbox.address,
            "metadata.labels['batch.kubernetes.io/controller-uid']": f"uid-of-{pod.name}"})
        command = self._spec["command"] + self._spec.get("args", [])
        return {
            "root": str(self._root), "mounts": mounts,
            "command": [expand(it, values) for it in command],
            "environment": {"PATH": "/usr/bin", "HOSTNAME": pod.name} | values,
            "user": context["runAsUser"], "group": context["runAsGroup"],
            "groups": [context["fsGroup"]], "read_only": mine["readOnlyRootFilesystem"],
            "drop_capabilities": "ALL" in mine["capabilities"]["drop"],
            "no_new_privileges": not mine["allowPrivilegeEscalation"]}

    def _fail(self, reason: str) -> None:
        self.failure = reason

    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._outer.poll()

    def pid(self) -> int:
        """Of the process in the container, below those that led to it."""
        pid = self._outer.pid
        while below := _children(pid):
            pid = below[0]
        return pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid(), number)

    def confinement(self) -> dict[str, str]:
        """What the kernel says of the process: its user, its privileges, its namespaces."""
        pid = self.pid()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        spaces = {it: os.readlink(f"/proc/{pid}/ns/{it}")[len(it) + 2:-1]
                  for it in ("pid", "net", "ipc", "mnt")}
        root = next(line.split()[5] for line in
                    Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                    if line.split()[4] == "/")
        return spaces | {
            "user": status["Uid"].split()[1], "capabilities": status["CapBnd"],
            "no_new_privileges": status["NoNewPrivs"], "root": root.split(",")[0]}

    def await_end(self, timeout: float) -> int:
        """Its exit status; subprocess.TimeoutExpired."""
        return self._outer.wait(timeout)

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")


class Pod:
    """One pod of a workload, started.

    Args:
      name: as the cluster would name it.
      number: the last part of its address.
      template: of the workload.
      site: what it shares with the others.
    """

    def __init__(self, name: str, number: int, template: Object, site: Site):
        self.name = name
        self.spec = template["spec"]
        self.site = site
        self.directory = site.directory / name
        self.directory.mkdir()
        self.sandbox = Sandbox(name, number)
        (self.directory / "hosts").write_text(
            f"127.0.0.1 localhost\n{self.sandbox.address} {name}\n")
        (self.directory / "resolv.conf").write_text(f"nameserver {GATEWAY}\n{SEARCH}")
        metadata = {"name": name, "namespace": "muster"}
        folders = {
            it["name"]: make_volume(it, self.directory / "volumes" / it["name"],
                                    {"metadata": metadata, "spec": self.spec}, site.sources)
            for it in self.spec["volumes"]}
        self.containers = [Container(it, self, folders) for it in self.spec["containers"]]

    def __iter__(self) -> Iterator[Container]:
        return iter(self.containers)

    def ready(self) -> bool:
        """RuntimeError when a container has ended, or would be restarted."""
        for container in self:
            status = container.exit_status()
            if status is not None or container.failure:
                what = f"ended with {status}" if status is not None else container.failure
                raise RuntimeError(f"{container.name} {what}\n{container.read_log()[-3000:]}")
        return all(it.probes is None or it.probes.ready for it in self)

    def await_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > deadline:
                waits = [f"{it.name}: {it.probes.complaint}" for it in self
                         if it.probes is not None and not it.probes.ready]
                raise TimeoutError(f"not ready within {timeout} s: " + "; ".join(waits))
            time.sleep(0.05)

    def terminate(self) -> dict[str, int]:
        """As a cluster deletes it: SIGTERM to all containers. Exit statuses by container;
        subprocess.TimeoutExpired when one outlives the grace period."""
        deadline = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
        for container in self:
            if container.probes is not None:
                container.probes.end()
            container.signal(signal.SIGTERM)
        statuses = {it.name: it.await_end(deadline - time.monotonic()) for it in self}
        self.sandbox.end()
        return statuses

    def await_completion(self, timeout: float) -> str:
        """What the one container of a Job's pod wrote; RuntimeError when it failed."""
        [container] = self.containers
        status = container.await_end(timeout)
        self.sandbox.end()
        if status != 0:
            raise RuntimeError(f"{container.name} ended with {status}\n{container.read_log()}")
        return container.read_log()
