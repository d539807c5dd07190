"""The ground under every kind: how a type is written, and what all objects have.

Attribute docstrings become CRD descriptions; `RULES` become CEL validations of the CRD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from .references import API_VERSION


@dataclass(frozen=True)
class Rule:
    """One CEL validation, run by the API server. `cel` is true for what is allowed."""

    cel: str
    message: str  # what to do, as the user reads it; unique, because tests find rules by it
    field: str = ""  # path the API server names in its refusal, such as .slug
    on_create_too: bool = False  # oldSelf is an optional and the rule also runs at creation

    def document(self) -> dict[str, Any]:
        """Return the rule as one entry of x-kubernetes-validations."""
        entry: dict[str, Any] = {"rule": self.cel, "message": self.message}
        if self.field:
            entry["fieldPath"] = self.field
        if self.on_create_too:
            entry["optionalOldSelf"] = True
        return entry


def unchanged_optional(field: str) -> str:
    """Return the CEL term for an optional field that may be neither added, changed nor removed.

    It belongs on the parent: a rule on the field itself is not run when the field comes or goes.
    """
    present, before = f"has(self.{field})", f"has(oldSelf.{field})"
    return f"{present} == {before} && (!{present} || self.{field} == oldSelf.{field})"


UNIQUE: dict[str, Any] = {"x-kubernetes-list-type": "set"}  # a list whose items all differ


def keyed_by(*fields: str) -> dict[str, Any]:
    """Return the schema markers of a list of objects that differ in these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(fields)}


class Struct(BaseModel):
    """A frozen object with camelCase names on the outside and snake_case names in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",  # a newer CRD may know more fields than this operator
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the CEL rules of this type to its JSON schema."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.RULES:
            schema["x-kubernetes-validations"] = [rule.document() for rule in cls.RULES]
        return schema


class Metadata(Struct):
    """The part of Kubernetes' ObjectMeta that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    finalizers: tuple[str, ...] = ()


class Condition(Struct):
    """One observation of an object's state, as all Kubernetes kinds have them."""

    type: str = Field(max_length=64)
    """What is observed, such as Ready or Succeeded."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int | None = None
    """The metadata.generation this was observed at."""
    last_transition_time: datetime
    """When `status` last changed."""
    reason: str = Field(max_length=64)
    """Why, as one word of a closed list."""
    message: str = Field(max_length=4096)
    """What happened and what to do, in one sentence."""


class Status(Struct):
    """What every kind's status has."""

    observed_generation: int = -1
    """The metadata.generation this status is about; -1: not seen yet."""
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra=keyed_by("type"),
    )
    """The truth about the object; every other word of the status is derived from it."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of that type, or None."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; `wide` ones show with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "boolean", "date"] = "string"
    wide: bool = False
    description: str = ""


AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True)
class Names:
    """How a kind is called in URLs and on the command line."""

    kind: str
    plural: str
    short: str


class Resource(Struct):
    """An object of one of our kinds. Subclasses narrow `spec` and `status`."""

    NAMES: ClassVar[Names]
    COLUMNS: ClassVar[tuple[Column, ...]]
    SELECTABLE: ClassVar[tuple[str, ...]] = ()

    api_version: str = API_VERSION
    kind: str = ""
    metadata: Metadata
