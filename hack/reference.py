"""The field reference, one table per object, written from the CRDs so that it cannot be wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tenant_backup.api.references import API_VERSION
from tenant_backup.api.schema import custom_resource_definitions

_INTRODUCTION = f"""<!-- Made by `python -m hack.generate` from operator/tenant_backup/api; do not edit. -->
# API reference: `{API_VERSION}`

All kinds are namespaced and refer to objects of their own namespace only.
`kubectl explain tenantbackup.spec` says the same.
Durations are written like `90s`, `30m` or `1h30m`.
Fields marked **required** must be set when the object around them is.
"""


def reference_page() -> str:
    """Return docs/reference.md."""
    return "\n".join(
        [_INTRODUCTION, *(line for crd in custom_resource_definitions().values() for line in _kind(crd))]
    )


def _kind(definition: dict[str, Any]) -> Iterator[str]:
    names = definition["spec"]["names"]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    yield f"## {names['kind']}\n"
    yield f"{schema['description']} Short name: `{names['shortNames'][0]}`.\n"
    for part in ("spec", "status"):
        yield f"### {names['kind']} {part}\n"
        yield "| field | type | meaning |\n|---|---|---|"
        yield from _rows(schema["properties"][part], "")
        yield ""
    rules = list(_rules(schema))
    if rules:
        yield f"### {names['kind']} rules\n"
        yield from (f"- {message}" for message in rules)
        yield ""


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        where = f"{path}{name}"
        required = " **required**" if name in schema.get("required", []) else ""
        yield f"| `{where}` | {_type(child)}{required} | {_meaning(child)} |"
        yield from _rows(child, f"{where}.")
        yield from _rows(child.get("items", {}), f"{where}[].")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _meaning(schema: dict[str, Any]) -> str:
    notes = [schema.get("description", "")]
    if "minimum" in schema and "maximum" in schema:
        notes.append(f"From {schema['minimum']} to {schema['maximum']}.")
    if not isinstance(schema.get("default"), dict | None):
        default = json.dumps(schema["default"]).strip('"')
        notes.append(f"Default `{default}`.")
    return " ".join(note for note in notes if note).replace("|", "\\|")


def _rules(schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    children = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    for child in children:
        yield from _rules(child)
