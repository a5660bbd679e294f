"""The Kubernetes objects of deploy/kubernetes, as `kubectl kustomize` renders them."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"

# One object, container or volume, as it stands in the YAML.
Object = dict[str, Any]


def kubectl() -> str | None:
    """The kubectl to render with: $KUBECTL, or the one on the PATH."""
    return shutil.which(os.environ.get("KUBECTL") or "kubectl")


@dataclass(frozen=True)
class Objects:
    """All objects of one kustomization.

    Attributes:
      all: in the order in which they were rendered.
    """

    all: list[Object]

    def of_kind(self, kind: str) -> list[Object]:
        return [it for it in self.all if it["kind"] == kind]

    def find(self, kind: str, name: str) -> Object:
        """Raises LookupError when there is none."""
        for it in self.of_kind(kind):
            if it["metadata"]["name"] == name:
                return it
        raise LookupError(f"no {kind} is named {name}")

    def workloads(self) -> Iterator[Object]:
        """Objects that make pods."""
        yield from (it for it in self.all if it["kind"] in ("Deployment", "StatefulSet", "Job"))


def render(name: str) -> Objects:
    """Renders a folder of deploy/kubernetes; RuntimeError says what kubectl complains of."""
    program = kubectl()
    if program is None:
        raise RuntimeError("kubectl is not on the PATH")
    return Objects([it for it in yaml.safe_load_all(_rendered_text(program, name)) if it])


@functools.cache
def _rendered_text(program: str, name: str) -> str:
    result = subprocess.run([program, "kustomize", str(KUBERNETES / name)], capture_output=True,
                            text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"kubectl kustomize {name}: {result.stderr.strip()}")
    return result.stdout


def pod_template(workload: Object) -> Object:
    return workload["spec"]["template"]


def containers(workload: Object) -> list[Object]:
    return pod_template(workload)["spec"]["containers"]


def port_of(container: Object, port: int | str) -> int:
    """The number of a port that stands there by name or number."""
    numbers = {it["name"]: it["containerPort"] for it in container["ports"]}
    return numbers[port] if isinstance(port, str) else port


def labels_match(selector: Object, labels: dict[str, str]) -> bool:
    """Whether `selector`, of matchLabels alone, selects what has `labels`."""
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def seconds(duration: str) -> float:
    """Of a duration in one unit: "30s", "5m"."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def environment(container: Object, objects: Objects, fields: dict[str, str]) -> dict[str, str]:
    """What the container finds in its environment, as the kubelet makes it.

    Args:
      container: of a pod's template.
      objects: where its ConfigMaps are.
      fields: of the pod, by path: {"metadata.name": "muster-worker-0"}.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= objects.find("ConfigMap", source["configMapRef"]["name"])["data"]
    own: dict[str, str] = {}
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            own[entry["name"]] = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            own[entry["name"]] = expand(entry["value"], found | own)
    return found | own


def expand(text: str, known: dict[str, str]) -> str:
    """`text` with each $(NAME) of `known` replaced."""
    for name, value in known.items():
        text = text.replace(f"$({name})", value)
    return text
