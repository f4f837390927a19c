"""One control plane for the session, with the operators' definitions and the policies that a hardened cluster has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster_build import CannotBuildError
from tests.cluster.control_plane import ControlPlane, Object
from tests.cluster.operators import resources
from tests.peers import require_or_skip
from tests.unit.charts.test_chart import CHART, helm

POLICIES = Path(__file__).parent / "policies.yaml"
RELEASE = "osler"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and the API server, with the operators' definitions and a policy for pods."""
    made = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        made.start_server()
        made.apply(*resources())
        made.wait(lambda: established(made), "the operators' definitions are served")
        made.apply(*yaml.safe_load_all(POLICIES.read_text(encoding="utf-8")))
        yield made
    except CannotBuildError as error:
        require_or_skip(str(error))
    finally:
        made.stop()


@pytest.fixture(scope="session")
def plane(server: ControlPlane) -> ControlPlane:
    """The whole control plane, with machines."""
    try:
        server.start_rest()
    except CannotBuildError as error:
        require_or_skip(str(error))
    return server


def established(made: ControlPlane) -> bool:
    found = made.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    told = [{c["type"]: c["status"] for c in d.get("status", {}).get("conditions") or []} for d in found]
    return bool(told) and all(conditions.get("Established") == "True" for conditions in told)


@dataclass(frozen=True)
class Release:
    """The chart in a namespace of its own, which takes only restricted pods with limits."""

    plane: ControlPlane
    namespace: str
    values: str

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [helm(), "--namespace", self.namespace, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.plane.environment())

    def install(self, *more: str) -> float:
        """`helm install --wait`; seconds until everything was ready."""
        began = time.monotonic()
        done = self.helm(
            "install", RELEASE, str(CHART), "-f", str(CHART / self.values), "--wait", "--timeout=5m", *more
        )
        assert done.returncode == 0, done.stderr[-3000:] + self.events()
        assert "would violate PodSecurity" not in done.stderr, done.stderr
        return time.monotonic() - began

    def of(self, kind: str, group: str = "api/v1") -> list[Object]:
        return self.plane.items(f"/{group}/namespaces/{self.namespace}/{kind}")

    def deployments(self) -> dict[str, Object]:
        return {d["metadata"]["name"]: d for d in self.of("deployments", "apis/apps/v1")}

    def pods(self, room: str = "") -> list[Object]:
        """Pods that are neither done nor on their way out."""
        left = [p for p in self.of("pods") if "deletionTimestamp" not in p["metadata"]]
        found = [p for p in left if p["status"].get("phase") != "Succeeded"]
        return [p for p in found if not room or p["metadata"]["labels"]["app.kubernetes.io/component"] == room]

    def ready(self, room: str) -> int:
        return int(self.deployments()[f"{RELEASE}-{room}"]["status"].get("readyReplicas", 0))

    def events(self) -> str:
        told = [f"{e['reason']}: {e.get('message', '')}" for e in self.of("events") if e["type"] == "Warning"]
        return "\n".join(told[-10:])


def namespace(name: str) -> Object:
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}}


def quota(name: str, **hard: str) -> Object:
    """Every pod must say what it may take, or this quota refuses it."""
    limits = {"requests.cpu": "200", "requests.memory": "600Gi", "limits.cpu": "400", "limits.memory": "800Gi", **hard}
    place = {"name": "all", "namespace": name}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": place, "spec": {"hard": limits}}


def secret(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "osler", "namespace": name},
        "stringData": {"A": "b"},
    }


@pytest.fixture(scope="session")
def releases(plane: ControlPlane) -> Callable[[str], Release]:
    """Makes namespaces on demand: `releases(values)` is the one installation of that file of values."""
    made: dict[str, Release] = {}

    def of(values: str) -> Release:
        if values not in made:
            name = values.removesuffix(".yaml").replace("values", "osler")
            plane.apply(namespace(name))
            plane.apply(quota(name), secret(name))
            made[values] = Release(plane, name, values)
            made[values].install()
        return made[values]

    return of
