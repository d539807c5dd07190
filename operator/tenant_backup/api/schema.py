"""Types to CustomResourceDefinitions: pydantic's JSON schema made structural, as the API server wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import KINDS
from .references import CATEGORY, GROUP, PART_OF, VERSION
from .resource import Column, Resource

Schema = dict[str, Any]

_EMPTY: tuple[Any, ...] = (None, "", [], {})
_DROPPED = ("title", "$defs", "additionalProperties")


def custom_resource_definition(kind: type[Resource]) -> Schema:
    """Return the CRD of a kind as a document for YAML."""
    names = kind.NAMES
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}", "labels": PART_OF},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.kind,
                "listKind": f"{names.kind}List",
                "plural": names.plural,
                "singular": names.kind.lower(),
                "shortNames": [names.short],
                "categories": [CATEGORY],
            },
            "versions": [_version(kind)],
        },
    }


def custom_resource_definitions() -> dict[str, Schema]:
    """Return the CRDs of all kinds by plural name."""
    return {kind.NAMES.plural: custom_resource_definition(kind) for kind in KINDS}


def _version(kind: type[Resource]) -> Schema:
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_printer_column(column) for column in kind.COLUMNS],
        "schema": {"openAPIV3Schema": structural_schema(kind)},
    }
    if kind.SELECTABLE:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.SELECTABLE]
    return version


def _printer_column(column: Column) -> Schema:
    printed: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**printed, "priority": 1} if column.wide else printed


def structural_schema(kind: type[Resource]) -> Schema:
    """Return the OpenAPI schema of a kind: no references, no unions, status created with its defaults."""
    document = kind.model_json_schema(by_alias=True)
    schema = _structural(document, document.get("$defs", {}))
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string"}
    properties["kind"] = {"type": "string"}
    properties["metadata"] = {"type": "object"}  # its own schema is the API server's
    # An object that nobody has seen yet must not look current to kstatus.
    properties["status"]["default"] = {"observedGeneration": -1}
    schema["required"] = ["spec"]
    return schema


def _structural(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    node = _resolved(_without_null(node), definitions)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    default = _without_empty(result.pop("default", None))
    if default not in _EMPTY:
        result["default"] = default
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "properties" in result:
        result["properties"] = {
            name: _structural(child, definitions) for name, child in result["properties"].items()
        }
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    return dict(sorted(result.items()))


def _resolved(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    if "$ref" not in node:
        return node
    target = definitions[node["$ref"].rpartition("/")[2]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _without_null(node: Schema) -> Schema:
    """Turn `X | None` into an optional X: Kubernetes has absent fields, not null ones."""
    if "anyOf" not in node:
        return node
    (choice,) = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
    return {**choice, **{key: value for key, value in node.items() if key != "anyOf"}}


def _without_empty(default: Any) -> Any:
    """Drop empty defaults: absent and empty mean the same, and stored objects stay as users wrote them."""
    if not isinstance(default, dict):
        return default
    cleaned = {key: _without_empty(value) for key, value in default.items()}
    return {key: value for key, value in cleaned.items() if value not in _EMPTY}
