"""Builds the control plane of the cluster tests from Go modules: once, then it stays in `.cache/cluster`.

`controlplane/go.mod` names the programs (Kubernetes with its staging modules as released, etcd, kwok, metrics-server) and
`go.sum` what they are made of. About ten minutes on two idle cores. `python -m tests.cluster.cluster_build` builds ahead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = HERE / "controlplane"
CACHE = HERE.parents[1] / ".cache" / "cluster"
PROGRAMS: Mapping[str, str] = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server",
}  # fmt: skip


class CannotBuildError(RuntimeError):
    """The control plane cannot be built here; the message says what is missing."""


def programs(wanted: Iterable[str] = PROGRAMS) -> Mapping[str, Path]:
    """Where each wanted program lies, built first if it is not there. Raises CannotBuildError."""
    folder = CACHE / _fingerprint()
    places = {name: folder / name for name in wanted}
    if all(place.exists() for place in places.values()) and (folder / "simulation").exists():
        return places
    folder.mkdir(parents=True, exist_ok=True)
    with (CACHE / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, place in places.items():
            if not place.exists():
                _build(PROGRAMS[name], place)
        _copy_simulation(folder)
    return places


def simulation() -> list[Path]:
    """kwok's own descriptions of how machines and pods behave, and of what their meters show."""
    return sorted((CACHE / _fingerprint() / "simulation").glob("*.yaml"))


def _fingerprint() -> str:
    return hashlib.sha256((MODULE / "go.sum").read_bytes() + (MODULE / "go.mod").read_bytes()).hexdigest()[:12]


def _version(module: str) -> str:
    for line in (MODULE / "go.mod").read_text(encoding="utf-8").splitlines():
        if line.split()[:1] == [module]:
            return line.split()[1]
    raise CannotBuildError(f"{module} is not in {MODULE / 'go.mod'}")


def _go(*arguments: str) -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise CannotBuildError("go is missing: it builds the control plane of the cluster tests (go 1.26 or newer)")
    environment = {"GOFLAGS": "-p=2 -buildvcs=false", **os.environ}
    done = subprocess.run([go, *arguments], cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"go {' '.join(arguments)}: {done.stderr[-1500:]}")
    return done.stdout


def _build(package: str, target: Path) -> None:
    version = _version("k8s.io/kubernetes")
    _, minor, _ = version.split(".")
    stamp = "k8s.io/component-base/version.git"
    flags = f"-s -w -X {stamp}Version={version} -X {stamp}Major=1 -X {stamp}Minor={minor}"
    print(f"building {target.name} {_version('k8s.io/kubernetes')}", file=sys.stderr, flush=True)
    partial = target.with_suffix(".partial")
    _go("build", "-ldflags", flags, "-o", str(partial), package)
    partial.replace(target)


def _copy_simulation(folder: Path) -> None:
    if (folder / "simulation").exists():
        return
    module = Path(json.loads(_go("list", "-m", "-json", "sigs.k8s.io/kwok"))["Dir"]) / "kustomize"
    partial = folder / "simulation.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for part in (
        "stage/pod/fast",
        "stage/node/fast",
        "stage/node/heartbeat-with-lease",
        "metrics/usage",
        "metrics/resource",
    ):
        for file in sorted((module / part).glob("*.yaml")):
            if file.name != "kustomization.yaml":
                (partial / file.name).write_bytes(file.read_bytes())
    partial.rename(folder / "simulation")


if __name__ == "__main__":
    for place in programs().values():
        print(place)
