"""What the chart asks of operators is what their own definitions accept: KEDA, CloudNativePG, KubeRay, Prometheus, External
Secrets and cert-manager, as their Go modules ship them. Strimzi publishes its definitions in no registry of modules."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.peers import require_or_skip
from tests.unit.charts.test_chart import VALUES, render

# API group -> module with its definitions, and where they lie in it
MODULES = {
    "keda.sh": ("github.com/kedacore/keda/v2@v2.17.2", "config/crd/bases"),
    "postgresql.cnpg.io": ("github.com/cloudnative-pg/cloudnative-pg@v1.26.1", "config/crd/bases"),
    "ray.io": ("github.com/ray-project/kuberay/ray-operator@v1.4.2", "config/crd/bases"),
    "monitoring.coreos.com": ("github.com/prometheus-operator/prometheus-operator@v0.84.0", "example/prometheus-operator-crd"),
    "external-secrets.io": ("github.com/external-secrets/external-secrets@v0.19.2", "config/crds/bases"),
    "cert-manager.io": ("github.com/cert-manager/cert-manager@v1.18.2", "deploy/crds"),
}  # fmt: skip


@cache
def definitions(group: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) -> OpenAPI schema of a group."""
    go = shutil.which("go") or require_or_skip("go is missing: it fetches the operators' definitions")
    module, folder = MODULES[group]
    done = subprocess.run(
        [str(go), "mod", "download", "-json", module], capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode != 0:
        require_or_skip(f"{module} cannot be fetched: {done.stdout[-300:]}{done.stderr[-300:]}")
    found = {}
    for file in sorted((Path(json.loads(done.stdout)["Dir"]) / folder).glob("*.yaml")):
        # Some are Helm templates around the definition: what is no YAML is none of ours.
        try:
            documents = [d for d in yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader) if d]
        except yaml.YAMLError:
            continue
        for document in documents:
            if document.get("kind") == "CustomResourceDefinition" and document["spec"]["group"] == group:
                for version in document["spec"]["versions"]:
                    key = (f"{group}/{version['name']}", document["spec"]["names"]["kind"])
                    found[key] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: Any) -> Any:
    """The same without room for fields that it does not name: an API server would drop them in silence."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if isinstance(made.get("format"), str):
        del made["format"]
    if isinstance(made.get("pattern"), str) and "(?i)" in made["pattern"][1:]:
        # Go's place for flags; Python's is the beginning.
        made["pattern"] = "(?i)" + made["pattern"].replace("(?i)", "")
    if made.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if made.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made


@pytest.mark.parametrize("values", VALUES)
def test_operators_accept_what_the_chart_asks_of_them(values: str) -> None:
    for o in render(values):
        group = o["apiVersion"].partition("/")[0]
        if group not in MODULES:
            continue
        schema = definitions(group)[(o["apiVersion"], o["kind"])]
        # The root's metadata is Kubernetes' own.
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.validate(o, schema)


def test_the_check_would_see_a_misspelt_field() -> None:
    (scaler, *_) = [o for o in render("values-hospital.yaml") if o["kind"] == "ScaledObject"]
    schema = definitions("keda.sh")[(scaler["apiVersion"], scaler["kind"])]
    wrong = {**scaler, "spec": {**scaler["spec"], "minReplicas": 1}}
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate(wrong, {**schema, "properties": {**schema["properties"], "metadata": {}}})
