"""What a real API server admits of the chart: every object of every file of values, and every pod that comes of them.

Only etcd and the API server run here; what controllers and the scheduler make of it is in `test_control_plane.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from tests.cluster.conftest import RELEASE, Release, namespace, secret
from tests.cluster.control_plane import ControlPlane, Object
from tests.unit.charts.test_chart import CHART, VALUES, pods, render


@pytest.fixture(scope="module", params=VALUES)
def admitted(request: pytest.FixtureRequest, server: ControlPlane) -> Release:
    """`helm install` into a namespace that enforces Pod Security `restricted`; nothing waits, as nothing runs."""
    name = "admission-" + request.param.removesuffix(".yaml").removeprefix("values").removeprefix("-")
    release = Release(server, name.rstrip("-"), request.param)
    # Every namespace gets an account from a controller that does not run here.
    place = {"name": "default", "namespace": release.namespace}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place}
    server.apply(namespace(release.namespace), secret(release.namespace), account)
    values = ("-f", str(CHART / request.param))
    done = release.helm("install", RELEASE, str(CHART), *values, "--no-hooks", "--timeout=2m")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "would violate PodSecurity" not in done.stderr, done.stderr
    assert "unknown field" not in done.stderr, done.stderr
    return release


def try_pod(release: Release, spec: Object) -> tuple[int, str]:
    """Asks the API server for a pod without making it: status and what it says."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "namespace": release.namespace}, "spec": spec}
    answer = release.plane.call("POST", f"/api/v1/namespaces/{release.namespace}/pods?dryRun=All", pod)
    return answer.status_code, answer.text


def test_every_object_is_stored_as_it_was_asked_for(admitted: Release) -> None:
    """Each spec comes back with all that the chart said: nothing was dropped as unknown."""
    for wanted in render(admitted.values):
        if wanted["kind"] == "Job":
            continue
        place = {**wanted, "metadata": {**wanted["metadata"], "namespace": admitted.namespace}}
        kept = admitted.plane.get(f"{admitted.plane.place(place)}/{wanted['metadata']['name']}")
        lost = list(missing(fields(wanted.get("spec", {})), fields(kept.get("spec", {}))))
        assert not lost, (wanted["kind"], wanted["metadata"]["name"], lost[:5])


def fields(node: Any, path: str = "") -> Iterator[str]:
    """The paths of all that is set; an empty value counts as not set."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from fields(value, f"{path}.{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from fields(value, f"{path}[{number}]")
    elif node not in (None, ""):
        yield path


def missing(wanted: Iterator[str], kept: Iterator[str]) -> Iterator[str]:
    there = set(kept)
    return (path for path in wanted if path not in there)


def test_every_pod_of_every_owner_is_admitted(admitted: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Deployments, the job that migrates, Ray's head and workers: by Pod Security `restricted` and the policy beside it."""
    owners = [
        (owner, spec) for owner, spec in pods(render(admitted.values)) if not owner.startswith(("Kafka", "Cluster"))
    ]
    for owner, spec in owners:
        status, said = try_pod(admitted, {"restartPolicy": "Always", **spec})
        assert status == 201, (owner, said)
    assert len(owners) >= 10
    with capsys.disabled():
        print(f"\n{admitted.values}: {len(owners)} pods of {len({o for o, _ in owners})} owners admitted", end="")


def hospital_pod() -> Object:
    (spec,) = [spec for owner, spec in pods(render("values-hospital.yaml")) if owner == "Deployment osler-board"]
    return deepcopy(spec)


BREACHES: dict[str, tuple[Callable[[Object], object], str]] = {
    "root": (lambda s: s.update(securityContext={"runAsUser": 0}), "violates PodSecurity"),
    "privileged": (lambda s: s["containers"][0]["securityContext"].update(privileged=True), "rivileged"),
    "no limits": (lambda s: s["containers"][0].update(resources={}), "needs limits"),
    "no user": (lambda s: s["securityContext"].pop("runAsUser"), "must not run as root"),
    "a root to write": (
        lambda s: s["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False), "read-only",
    ),
    "a folder of the machine": (
        lambda s: s["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "violates PodSecurity",
    ),
}  # fmt: skip


@pytest.mark.parametrize("breach", BREACHES)
@pytest.mark.parametrize("admitted", ["values-hospital.yaml"], indirect=True)
def test_what_a_hardened_cluster_refuses(breach: str, admitted: Release) -> None:
    spec = hospital_pod()
    assert try_pod(admitted, spec)[0] == 201
    change, word = BREACHES[breach]
    change(spec)
    status, said = try_pod(admitted, spec)
    assert status in (403, 422), said
    assert word in said
