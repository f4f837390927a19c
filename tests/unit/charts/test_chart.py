"""The chart renders with every set of values, and what it renders is what a hardened cluster accepts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from services.compose.topology import SUBSCRIPTIONS
from services.platform.config import ROOMS, Settings
from tests.peers import require_or_skip

CHART = Path(__file__).parents[3] / "charts/osler"
VALUES = ("values.yaml", "values-laptop.yaml", "values-hospital.yaml", "values-region.yaml")
KUBERNETES = "1.33"
Object = dict[str, Any]


@cache
def helm() -> str:
    found = shutil.which("helm") or shutil.which("helm", path=str(Path.home() / "go/bin"))
    if found is None:
        advice = "helm is missing: go install helm.sh/helm/v3/cmd/helm@latest"
        if shutil.which("go"):
            require_or_skip(advice)
        pytest.skip(advice)
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False)


@cache
def render(values: str, *more: str) -> tuple[Object, ...]:
    done = run("template", "osler", str(CHART), "-f", str(CHART / values), *more)
    assert done.returncode == 0, done.stderr
    return tuple(o for o in yaml.safe_load_all(done.stdout) if o)


@pytest.fixture(params=VALUES)
def objects(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    return render(request.param)


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    return [o for o in objects if o["kind"] in kinds]


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """Every pod template with its owner's name."""

    def below(node: Any) -> Iterator[Object]:
        if isinstance(node, dict):
            if "containers" in node:
                yield node
            for value in node.values():
                yield from below(value)
        elif isinstance(node, list):
            for value in node:
                yield from below(value)

    for o in objects:
        for pod in below(o.get("spec", {})):
            yield f"{o['kind']} {o['metadata']['name']}", pod


@pytest.mark.parametrize("values", VALUES)
def test_helm_lint(values: str) -> None:
    done = run("lint", "--strict", str(CHART), "-f", str(CHART / values))
    assert done.returncode == 0, done.stdout


def test_every_object_of_kubernetes_itself_is_valid(objects: tuple[Object, ...]) -> None:
    checked = 0
    for o in objects:
        group = o["apiVersion"].rpartition("/")[0]
        if "." not in group or group.endswith(".k8s.io"):
            kubernetes_validate.validate(o, KUBERNETES, strict=True)
            checked += 1
    assert checked > 30


def test_every_room_has_its_deployment(objects: tuple[Object, ...]) -> None:
    names = {d["metadata"]["name"] for d in of_kind(objects, "Deployment")}
    assert names == {f"osler-{room}" for room in ROOMS}


def test_pods_are_restricted_and_bounded(objects: tuple[Object, ...]) -> None:
    """Pod Security Standards, profile restricted; and no container without limits."""
    for owner, pod in pods(objects):
        context = pod["securityContext"]
        assert context["runAsNonRoot"], owner
        assert context["runAsUser"] > 0, owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), owner
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"], owner
            assert not own["allowPrivilegeEscalation"], owner
            assert own["capabilities"] == {"drop": ["ALL"]}, owner
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), owner
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), owner
        for volume in pod["volumes"]:
            assert "hostPath" not in volume, owner
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), owner


def test_operations_port_is_the_one_that_the_probes_ask(objects: tuple[Object, ...]) -> None:
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        base = int(next(e["value"] for e in container["env"] if e["name"] == "OSLER_TELEMETRY__PROMETHEUS_PORT"))
        telemetry = Settings().telemetry.model_copy(update={"prometheus_port": base})
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert telemetry.operations_port(container["args"][1]) == ports["operations"]


def test_settings_are_ones_that_osler_knows(
    objects: tuple[Object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (config,) = [c for c in of_kind(objects, "ConfigMap") if c["metadata"]["name"] == "osler-settings"]
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]:
            if variable["name"].startswith("OSLER_"):
                monkeypatch.setenv(variable["name"], variable.get("value", "secret"))
    settings = Settings.load(home=tmp_path)
    assert settings.bus.backend == "kafka"
    assert json.loads(config["data"]["OSLER_GRPC__ENDPOINTS"])["fusion"] == settings.grpc.endpoint("fusion")


def test_what_is_mounted_and_referred_to_is_there(objects: tuple[Object, ...]) -> None:
    claims = {o["metadata"]["name"] for o in of_kind(objects, "PersistentVolumeClaim")}
    accounts = {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
    for owner, pod in pods(objects):
        volumes = {v["name"] for v in pod["volumes"]}
        for container in pod["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= volumes, owner
        for volume in pod["volumes"]:
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}, owner
        assert pod.get("serviceAccountName") in {None, *accounts}, owner
    deployments = {d["metadata"]["name"] for d in of_kind(objects, "Deployment")}
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        assert scaler["spec"]["scaleTargetRef"]["name"] in deployments
    services = {s["metadata"]["name"] for s in of_kind(objects, "Service")}
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            assert {p["backend"]["service"]["name"] for p in rule["http"]["paths"]} <= services


def test_a_scaled_room_leaves_its_number_to_the_scaler(objects: tuple[Object, ...]) -> None:
    scaled = {
        s["spec"]["scaleTargetRef"]["name"]: s["spec"]
        for s in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    }
    for deployment in of_kind(objects, "Deployment"):
        assert ("replicas" in deployment["spec"]) == (deployment["metadata"]["name"] not in scaled)
    for scaler in of_kind(objects, "ScaledObject"):
        room = scaler["spec"]["triggers"][0]["metadata"]["consumerGroup"]
        assert SUBSCRIPTIONS[room]


def test_nothing_is_open_that_no_policy_names(objects: tuple[Object, ...]) -> None:
    policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(objects, "NetworkPolicy")}
    deny = policies["osler-default-deny"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny.keys()
    for deployment in of_kind(objects, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deny["podSelector"]["matchLabels"].items() <= labels.items()
        own = policies[deployment["metadata"]["name"]]
        assert own["podSelector"]["matchLabels"] == labels
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        opened = {port["port"] for rule in own.get("ingress", []) for port in rule["ports"]}
        assert opened == {p["name"] for p in container["ports"]} - {"operations"}
    for name, spec in policies.items():
        for rule in spec.get("ingress", []):
            assert rule.get("from"), f"{name} lets everybody in"


def test_what_must_not_stop_has_a_budget_and_what_is_alone_has_none(objects: tuple[Object, ...]) -> None:
    budgets = {b["metadata"]["name"] for b in of_kind(objects, "PodDisruptionBudget")}
    scaled = {s["metadata"]["name"] for s in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")}
    for deployment in of_kind(objects, "Deployment"):
        name = deployment["metadata"]["name"]
        assert (name in budgets) == (name in scaled or deployment["spec"]["replicas"] > 1)


@pytest.mark.parametrize(
    "wrong",
    [
        "rooms.imaging.replicas=0",
        "rooms.kitchen.replicas=1",
        "rooms.fusion.resources.limits=null",
        "tcp.type=Carrier",
        "networkPolicies.hospital={everywhere}",
        "settings.osler_bus=x",
        "monitorring.enabled=true",
    ],
)
def test_wrong_values_are_refused_by_name(wrong: str) -> None:
    done = run("template", "osler", str(CHART), "--set", wrong)
    assert done.returncode != 0
    assert any(part in done.stderr for part in wrong.partition("=")[0].split(".")[-2:])


def test_alarms_ask_for_metrics_that_the_rooms_have() -> None:
    (rules,) = of_kind(render("values-hospital.yaml"), "PrometheusRule")
    told = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in told if "record" in rule}
    source = "".join(path.read_text(encoding="utf-8") for path in (CHART.parents[1] / "services/platform").glob("*.py"))
    for rule in told:
        for metric in re.findall(r"\bosler_[a-z_]+", rule["expr"]):
            assert f'"{re.sub("_(bucket|count|sum)$", "", metric)}"' in source, metric
        for name in re.findall(r"\bosler:[a-z0-9_:]+", rule["expr"]):
            assert name in recorded
    factors = [rule for rule in told if rule.get("alert") == "OslerEventsHandled"]
    assert [float(rule["expr"].split("> ")[1].split()[0]) for rule in factors] == [0.0144, 0.006, 0.003, 0.001]
    assert {rule["labels"]["room"] for rule in told if rule.get("alert") == "OslerRoomGone"} == set(ROOMS)


def test_dashboards_show_metrics_that_exist() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (CHART.parents[1] / "services/platform").glob("*.py"))
    boards = [c for c in of_kind(render("values-hospital.yaml"), "ConfigMap") if "dashboard" in c["metadata"]["name"]]
    assert len(boards) == 2
    for config in boards:
        (text,) = config["data"].values()
        for panel in json.loads(text)["panels"]:
            for target in panel["targets"]:
                for metric in re.findall(r"\bosler_[a-z_]+", target["expr"]):
                    assert f'"{re.sub("_(bucket|count|sum)$", "", metric)}"' in source, metric


def test_a_pod_that_stops_keeps_its_doors_open_while_word_gets_round(objects: tuple[Object, ...]) -> None:
    for deployment in of_kind(objects, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        # The host waits up to a minute for the work in hand (services/platform/host.py).
        assert 0 < delay < pod["terminationGracePeriodSeconds"] - 60


def test_models_are_asked_for_on_the_gpus_that_ray_may_start() -> None:
    (config,) = [
        c for c in of_kind(render("values-region.yaml"), "ConfigMap") if c["metadata"]["name"] == "osler-settings"
    ]
    groups = of_kind(render("values-region.yaml"), "RayCluster")[0]["spec"]["workerGroupSpecs"]
    (gpu,) = [g for g in groups if g["groupName"] == "gpu"]
    worker = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus, replicas = float(config["data"]["OSLER_COMPUTE__NUM_GPUS"]), int(config["data"]["OSLER_MODELS__MAX_REPLICAS"])
    assert replicas == gpu["maxReplicas"]
    assert gpus / replicas == worker["nvidia.com/gpu"]
    assert int(config["data"]["OSLER_COMPUTE__NUM_CPUS"]) / replicas <= float(worker["cpu"])


def test_models_start_from_no_gpu_and_rooms_join_them() -> None:
    objects = render("values-region.yaml")
    (cluster,) = of_kind(objects, "RayCluster")
    groups = {g["groupName"]: g for g in cluster["spec"]["workerGroupSpecs"]}
    assert groups["gpu"]["minReplicas"] == 0
    (container,) = groups["gpu"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    rooms = {d["metadata"]["name"]: d for d in of_kind(objects, "Deployment")}
    for room in ("imaging", "registration"):
        (container,) = rooms[f"osler-{room}"]["spec"]["template"]["spec"]["containers"]
        env = {e["name"]: e.get("value") for e in container["env"]}
        assert (env["OSLER_COMPUTE__BACKEND"], env["RAY_ADDRESS"]) == (
            "ray",
            f"ray://{cluster['metadata']['name']}-head-svc:10001",
        )
    (changed,) = of_kind(render("values-region.yaml", "--set", "image.tag=0.2.0"), "RayCluster")
    assert changed["metadata"]["name"] != cluster["metadata"]["name"]
    lock = (CHART.parents[1] / "uv.lock").read_text(encoding="utf-8")
    (installed,) = re.findall(r'name = "ray"\nversion = "([^"]+)"', lock)
    assert cluster["spec"]["rayVersion"] == installed
