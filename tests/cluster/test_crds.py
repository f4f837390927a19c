"""What the chart asks of operators is what their own definitions accept: KEDA, CloudNativePG, KubeRay, Prometheus, External
Secrets and cert-manager, as their Go modules ship them. Strimzi publishes its definitions in no registry of modules."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
import pytest

from tests.cluster.operators import MODULES, definitions
from tests.unit.charts.test_chart import VALUES, render


@cache
def schemas(group: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) -> OpenAPI schema of a group."""
    return {
        (f"{group}/{version['name']}", definition["spec"]["names"]["kind"]): strict(
            version["schema"]["openAPIV3Schema"]
        )
        for definition in definitions(group)
        for version in definition["spec"]["versions"]
    }


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
        schema = schemas(group)[(o["apiVersion"], o["kind"])]
        # The root's metadata is Kubernetes' own.
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.validate(o, schema)


def test_the_check_would_see_a_misspelt_field() -> None:
    (scaler, *_) = [o for o in render("values-hospital.yaml") if o["kind"] == "ScaledObject"]
    schema = schemas("keda.sh")[(scaler["apiVersion"], scaler["kind"])]
    wrong = {**scaler, "spec": {**scaler["spec"], "minReplicas": 1}}
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate(wrong, {**schema, "properties": {**schema["properties"], "metadata": {}}})
