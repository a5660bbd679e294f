"""deploy/kubernetes: every object is valid, every pod restricted, and all of it fits together."""

import re

import jsonschema
import kubernetes_validate
import pytest
from custom_kinds import SCHEMAS
from prometheus_rule import RULE, RULES, prometheus_rule
from rendered import (
    KUBERNETES, Objects, containers, environment, kubectl, labels_match, pod_template, port_of,
    render, seconds)

pytestmark = pytest.mark.skipif(
    kubectl() is None, reason="kubectl, which renders deploy/kubernetes, is not on the PATH")

# Below and above what clusters run today.
VERSIONS = ["1.29", "1.32", "1.37"]
FLEETS = {"cpu-demo": 4, "gpu-node": 8}  # to workers of a pod
OVERLAYS = [*FLEETS, "scale-cp", "monitoring", "fill-model"]
_POD = {"metadata.name": "pod", "status.podIP": "10.0.0.7"}  # what a container learns of its own


@pytest.fixture(params=OVERLAYS)
def objects(request) -> Objects:
    return render(request.param)


@pytest.fixture(params=FLEETS)
def fleet(request) -> Objects:
    return render(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects, version):
    for it in objects.all:
        if it["kind"] in SCHEMAS:
            jsonschema.validate(it, SCHEMAS[it["kind"]])
        else:
            kubernetes_validate.validate(it, version, strict=True)


def test_a_field_that_is_none_is_found():
    job = render("scale-cp").all[0]
    job["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)
    certificate = render("tls").of_kind("Certificate")[0]
    certificate["spec"]["usage"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(certificate, SCHEMAS["Certificate"])


@pytest.mark.parametrize("folder", sorted(it.name for it in KUBERNETES.iterdir() if it.is_dir()))
def test_no_kustomization_needs_more_than_kustomize_2_0(folder):
    text = (KUBERNETES / folder / "kustomization.yaml").read_text()
    known = {"namespace", "bases", "resources", "patchesStrategicMerge", "patchesJson6902",
             "configMapGenerator", "images"}
    assert set(re.findall(r"^(\w+):", text, re.MULTILINE)) <= known
    for block in re.findall(r"^resources:\n((?:- .*\n)+)", text, re.MULTILINE):
        for path in re.findall(r"- (.*)", block):
            assert (KUBERNETES / folder / path).is_file(), "folders stand under `bases`"


def test_every_container_is_restricted(objects):
    for workload in objects.workloads():
        pod = pod_template(workload)["spec"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]}}
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]


def test_no_pod_has_a_token_or_needs_root(objects):
    for account in objects.of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for workload in objects.workloads():
        assert pod_template(workload)["spec"]["automountServiceAccountToken"] is False
    assert not [it for it in objects.all if "Role" in it["kind"]]


def test_every_daemon_has_probes_on_its_admin_port_and_bounds(fleet):
    for workload in fleet.workloads():
        for container in containers(workload):
            values = environment(container, fleet, _POD)
            admin = int(values["MUSTER_ADMIN_LISTEN"].rpartition(":")[2])
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                get = container[probe]["httpGet"]
                assert port_of(container, get["port"]) == admin
            assert container["startupProbe"]["httpGet"]["path"] == "/startupz"
            # A standby is as ready as it can be.
            ready = "/readyz" if workload["kind"] == "Deployment" else "/readyz?standby"
            assert container["readinessProbe"]["httpGet"]["path"] == ready
            assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_daemons_listen_where_their_ports_are_and_show_certificates(fleet):
    for workload in fleet.workloads():
        for container in containers(workload):
            values = environment(container, fleet, _POD)
            assert "MUSTER_INSECURE" not in values
            ports = {int(values[it].rpartition(":")[2])
                     for it in ("MUSTER_LISTEN", "MUSTER_ADMIN_LISTEN")}
            assert ports == {it["containerPort"] for it in container["ports"]}
            mounts = {it["mountPath"]: it for it in container["volumeMounts"]}
            assert mounts[values["MUSTER_TLS"]]["readOnly"] is True
            assert not [value for value in values.values() if "$(" in value]


def test_workers_have_time_to_drain(fleet):
    for workload in fleet.of_kind("StatefulSet"):
        grace = pod_template(workload)["spec"]["terminationGracePeriodSeconds"]
        for container in containers(workload):
            values = environment(container, fleet, _POD)
            assert grace > seconds(values["MUSTER_DRAIN_TIMEOUT"])


@pytest.mark.parametrize("name", FLEETS)
def test_each_worker_of_a_pod_has_its_own_name_ports_and_certificate(name):
    objects = render(name)
    [workers] = objects.of_kind("StatefulSet")
    pod = pod_template(workers)["spec"]
    volumes = {it["name"]: it for it in pod["volumes"]}
    uris = []
    for index, container in enumerate(containers(workers)):
        values = environment(container, objects, _POD | {"metadata.name": "muster-worker-3"})
        assert container["name"] == f"worker-{index}"
        assert values["MUSTER_WORKER_ID"] == f"muster-worker-3-{index}"
        assert values["MUSTER_DOMAIN"] == "muster-worker-3"
        tls = next(it["name"] for it in container["volumeMounts"]
                   if it["mountPath"] == values["MUSTER_TLS"])
        attributes = volumes[tls]["csi"]["volumeAttributes"]
        uris.append(attributes["csi.cert-manager.io/uri-sans"])
        assert uris[-1].endswith(f"/muster/worker/${{POD_NAME}}-{index}")
    assert len(set(uris)) == FLEETS[name]
    ports = [it["containerPort"] for container in containers(workers) for it in container["ports"]]
    names = [it["name"] for container in containers(workers) for it in container["ports"]]
    assert len(set(ports)) == len(set(names)) == 2 * FLEETS[name]


def test_workers_of_a_pod_share_processes_and_memory(fleet):
    [workers] = fleet.of_kind("StatefulSet")
    pod = pod_template(workers)["spec"]
    assert pod["shareProcessNamespace"] is True
    [shm] = [it for it in pod["volumes"] if it.get("emptyDir", {}).get("medium") == "Memory"]
    for container in containers(workers):
        assert {"name": shm["name"], "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_every_worker_of_a_gpu_node_sees_all_gpus_and_takes_its_own():
    objects = render("gpu-node")
    [workers] = objects.of_kind("StatefulSet")
    for index, container in enumerate(containers(workers)):
        values = environment(container, objects, _POD)
        assert values["NVIDIA_VISIBLE_DEVICES"] == "all"
        assert values["MUSTER_DEVICE"] == f"cuda:{index}"
    asked = [it["resources"]["limits"].get("nvidia.com/gpu") for it in containers(workers)]
    assert asked == [8] + [None] * 7


def test_services_lead_to_ports_of_the_pods_that_they_select(fleet):
    for service in fleet.of_kind("Service"):
        [workload] = [it for it in fleet.workloads() if service["spec"]["selector"].items() <=
                      pod_template(it)["metadata"]["labels"].items()]
        there = {(port["name"], port["containerPort"])
                 for container in containers(workload) for port in container["ports"]}
        assert {(it["name"], it["targetPort"]) for it in service["spec"]["ports"]} == there
        assert all(it["port"] == it["targetPort"] for it in service["spec"]["ports"])


def _open_to(objects: Objects, workload, caller_labels) -> set[int]:
    """Ports of a workload that the policies open to pods of the namespace with these labels."""
    labels = pod_template(workload)["metadata"]["labels"]
    opened = set()
    for policy in objects.of_kind("NetworkPolicy"):
        if not labels_match(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get("ingress", []):
            if any("podSelector" in it and labels_match(it["podSelector"], caller_labels)
                   for it in rule["from"]):
                for port in rule["ports"]:
                    opened |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
    declared = {it["containerPort"] for container in containers(workload)
                for it in container["ports"]}
    return opened & declared


def test_policies_open_the_services_to_the_fleet_and_its_clients_alone(fleet):
    everybody = list(fleet.workloads())
    client = pod_template(next(render("scale-cp").workloads()))["metadata"]["labels"]
    for workload in everybody:
        grpc = {it["containerPort"] for container in containers(workload)
                for it in container["ports"] if it["name"].startswith("grpc")}
        [workers] = fleet.of_kind("StatefulSet")
        assert _open_to(fleet, workload, client) == grpc
        assert _open_to(fleet, workload, pod_template(workers)["metadata"]["labels"]) == grpc
        assert _open_to(fleet, workload, {"app.kubernetes.io/name": "other"}) == set()


def test_every_secret_of_a_pod_comes_from_a_certificate(fleet):
    made = {it["spec"]["secretName"]: it["spec"] for it in fleet.of_kind("Certificate")}
    for workload in [*fleet.workloads(), *render("scale-cp").workloads()]:
        for volume in pod_template(workload)["spec"]["volumes"]:
            if "secret" in volume:
                assert len(made[volume["secret"]["secretName"]]["uris"]) == 1


def test_the_budget_lets_one_pod_of_workers_go_at_a_time(fleet):
    [budget] = fleet.of_kind("PodDisruptionBudget")
    [workers] = fleet.of_kind("StatefulSet")
    assert budget["spec"]["maxUnavailable"] == 1
    assert labels_match(budget["spec"]["selector"], pod_template(workers)["metadata"]["labels"])


def test_everything_is_in_one_namespace_that_enforces_restriction(fleet):
    [namespace] = fleet.of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for it in fleet.all:
        if it is not namespace:
            assert it["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_the_monitor_scrapes_every_admin_port(fleet):
    [monitor] = render("monitoring").of_kind("ServiceMonitor")
    scraped = {it["port"] for it in monitor["spec"]["endpoints"]}
    for service in fleet.of_kind("Service"):
        assert labels_match(monitor["spec"]["selector"], service["metadata"]["labels"])
        admin = {it["name"] for it in service["spec"]["ports"] if it["name"].startswith("admin")}
        assert admin and admin <= scraped


def test_the_alerts_are_those_of_prometheus():
    assert RULE.read_text() == prometheus_rule(RULES.read_text()), "run scripts/prometheus_rule.py"
    [rule] = render("monitoring").of_kind("PrometheusRule")
    alerts = [it["alert"] for group in rule["spec"]["groups"] for it in group["rules"]]
    assert "MusterTargetDown" in alerts
