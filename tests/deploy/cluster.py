"""The workloads of an overlay as pods on this machine."""

import copy
import time
from dataclasses import dataclass, field
from pathlib import Path

from cluster_dns import ClusterDns
from issuer import Authority
from pods import GATEWAY, Pod, Site, make_bridge
from probes import HttpProbe
from rendered import Object, Objects, containers, environment, pod_template, port_of, render
from volumes import VolumeSources

_FIRST_ADDRESS = 10


@dataclass
class LocalCluster:
    """Coordinator and workers of one overlay, and of its Services what DNS answers.

    Attributes:
      overlay: the folder of deploy/kubernetes.
      site: what all pods share.
      dns: knows the coordinator's Service, and pods of workers by that of theirs.
      overrides: variables for every daemon, beyond those of the ConfigMaps; empty ones remove.
    """

    overlay: str
    site: Site
    dns: ClusterDns
    overrides: dict[str, str] = field(default_factory=dict)
    coordinators: list[Pod] = field(default_factory=list)
    workers: list[Pod] = field(default_factory=list)
    _pods: int = 0

    @staticmethod
    def prepare(overlay: str, directory: Path, image: Path, model: Path,
                overrides: dict[str, str]) -> "LocalCluster":
        """A cluster of which nothing has been started, in the namespaces of this process."""
        objects = render(overlay)
        for it in objects.of_kind("ConfigMap"):
            it["data"] |= overrides
        sources = VolumeSources(objects, Authority(directory / "authority"),
                                {"muster-model": model})
        make_bridge()
        site = Site(directory, image, objects, sources)
        return LocalCluster(overlay, site, ClusterDns(GATEWAY), overrides)

    def start(self, pods: int, timeout: float) -> None:
        """Starts what the overlay has, workers pod by pod as a StatefulSet does, until all serve.

        Raises RuntimeError or TimeoutError with what went wrong.
        """
        deadline = time.monotonic() + timeout
        [deployment] = self.site.objects.of_kind("Deployment")
        [stateful_set] = self.site.objects.of_kind("StatefulSet")
        name = deployment["metadata"]["name"]
        self.coordinators.append(self._pod(f"{name}-0", pod_template(deployment)))
        self.dns.add(_service_of(deployment, self.site.objects),
                     self.coordinators[-1].sandbox.address)
        name, service = stateful_set["metadata"]["name"], stateful_set["spec"]["serviceName"]
        for index in range(pods):
            pod = self._pod(f"{name}-{index}", pod_template(stateful_set))
            self.dns.add(f"{pod.name}.{service}", pod.sandbox.address)
            self.workers.append(pod)
            pod.await_ready(deadline - time.monotonic())
        for pod in self.coordinators:
            pod.await_ready(deadline - time.monotonic())
        for pod in self.workers:
            self._await_serving(pod, deadline)

    def serving(self, pod: Pod) -> list[str]:
        """The admin ports, as URLs, of the pod's workers that have a rank and serve."""
        urls = [f"http://{pod.sandbox.address}:{port_of(it, f'admin-{index}')}"
                for index, it in enumerate(pod.spec["containers"])]
        return [it for it in urls if not HttpProbe(f"{it}/readyz", 0, 1, 1).complaint()]

    def _await_serving(self, pod: Pod, deadline: float) -> None:
        [deployment] = self.site.objects.of_kind("Deployment")
        values = environment(containers(deployment)[0], self.site.objects, {})
        ranks = int(values["MUSTER_TP"]) * int(values["MUSTER_CP"])
        while len(self.serving(pod)) < ranks:
            pod.ready()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pod.name}: fewer than {ranks} workers serve")
            time.sleep(0.05)

    def run_job(self, folder: str, name: str, timeout: float,
                arguments: list[str] | None = None, secret: str | None = None,
                environment: dict[str, str] | None = None) -> str:
        """Runs a Job of deploy/kubernetes, and returns what it wrote; RuntimeError when it failed.

        Args:
          folder: of deploy/kubernetes.
          name: of its pod.
          timeout: in seconds.
          arguments: in place of its own.
          secret: whose certificate it has, in place of its own.
          environment: variables beyond its own.
        """
        template = copy.deepcopy(pod_template(next(render(folder).workloads())))
        [container] = template["spec"]["containers"]
        container["args"] = arguments or container["args"]
        variables = self.overrides | (environment or {})
        container["env"] += [{"name": key, "value": it} for key, it in variables.items()]
        for volume in template["spec"]["volumes"]:
            if secret is not None and "secret" in volume:
                volume["secret"]["secretName"] = secret
        return self._pod(name, template).await_completion(timeout)

    def stop(self) -> dict[str, int]:
        """SIGTERM to pods of workers, then to the coordinator's; exit statuses by container."""
        statuses: dict[str, int] = {}
        for pod in [*reversed(self.workers), *self.coordinators]:
            statuses |= pod.terminate()
        self.workers, self.coordinators = [], []
        return statuses

    def logs(self) -> str:
        """The last lines of every daemon that runs."""
        return "".join(f"--- {container.name}\n{container.read_log()[-2000:]}"
                       for pod in [*self.coordinators, *self.workers] for container in pod)

    def _pod(self, name: str, template: Object) -> Pod:
        self._pods += 1
        return Pod(name, _FIRST_ADDRESS + self._pods, template, self.site)


def _service_of(workload: Object, objects: Objects) -> str:
    """The name of the one Service that leads to the workload's pods."""
    labels = pod_template(workload)["metadata"]["labels"]
    [name] = [it["metadata"]["name"] for it in objects.of_kind("Service")
              if it["spec"]["selector"].items() <= labels.items()]
    return name
