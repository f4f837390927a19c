"""The definitions that operators bring into a cluster, as their Go modules ship them.

Strimzi publishes its definitions in no registry of modules: its resources get one that takes any field, so that the API server
keeps them; what they say is not checked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.peers import require_or_skip

# API group -> module with its definitions, and where they lie in it
MODULES: Mapping[str, tuple[str, str]] = {
    "keda.sh": ("github.com/kedacore/keda/v2@v2.17.2", "config/crd/bases"),
    "postgresql.cnpg.io": ("github.com/cloudnative-pg/cloudnative-pg@v1.26.1", "config/crd/bases"),
    "ray.io": ("github.com/ray-project/kuberay/ray-operator@v1.4.2", "config/crd/bases"),
    "monitoring.coreos.com": ("github.com/prometheus-operator/prometheus-operator@v0.84.0", "example/prometheus-operator-crd"),
    "external-secrets.io": ("github.com/external-secrets/external-secrets@v0.19.2", "config/crds/bases"),
    "cert-manager.io": ("github.com/cert-manager/cert-manager@v1.18.2", "deploy/crds"),
}  # fmt: skip
# What the chart asks for: of a module with a hundred definitions, the API server needs only these.
KINDS = frozenset(
    {"ScaledObject", "TriggerAuthentication", "Cluster", "ScheduledBackup", "RayCluster", "RayService", "ServiceMonitor",
     "PodMonitor", "PrometheusRule", "ExternalSecret", "Certificate", "Issuer"}
)  # fmt: skip
STRIMZI = {"Kafka": "kafkas", "KafkaNodePool": "kafkanodepools", "KafkaUser": "kafkausers", "KafkaTopic": "kafkatopics"}


@cache
def definitions(group: str) -> tuple[dict[str, Any], ...]:
    """The CustomResourceDefinitions of an API group; skips the test where they cannot be fetched."""
    go = shutil.which("go") or require_or_skip("go is missing: it fetches the operators' definitions")
    module, folder = MODULES[group]
    done = subprocess.run(
        [str(go), "mod", "download", "-json", module], capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode != 0:
        require_or_skip(f"{module} cannot be fetched: {done.stdout[-300:]}{done.stderr[-300:]}")
    return tuple(_read(Path(json.loads(done.stdout)["Dir"]) / folder, group))


def _read(folder: Path, group: str) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.yaml")):
        # Some are Helm templates around the definition: what is no YAML is none of ours.
        try:
            documents = [d for d in yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader) if d]
        except yaml.YAMLError:
            continue
        for document in documents:
            if document.get("kind") == "CustomResourceDefinition" and document["spec"]["group"] == group:
                yield document


def resources() -> list[dict[str, Any]]:
    """What a cluster with these operators has: their definitions, without the web hooks that convert between versions."""
    found = [d for group in MODULES for d in definitions(group) if d["spec"]["names"]["kind"] in KINDS]
    made = []
    for definition in found:
        spec = {name: value for name, value in definition["spec"].items() if name != "conversion"}
        metadata = {"name": definition["metadata"]["name"]}
        api = definition["metadata"].get("annotations", {}).get("api-approved.kubernetes.io")
        if api:
            metadata["annotations"] = {"api-approved.kubernetes.io": api}
        made.append({**{k: definition[k] for k in ("apiVersion", "kind")}, "metadata": metadata, "spec": spec})
    return [*made, *(_any_strimzi(kind, plural) for kind, plural in STRIMZI.items())]


def _any_strimzi(kind: str, plural: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta2", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.kafka.strimzi.io"},
        "spec": {"group": "kafka.strimzi.io", "names": names, "scope": "Namespaced", "versions": [version]},
    }
