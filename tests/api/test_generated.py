"""What is made from the types: fresh, deterministic, and complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from hack import generate
from hack.lab.kubectl import ROOT
from tenant_backup.api import KINDS, BackupSchedule, BackupStore, Tenant, TenantBackup, TenantRestore
from tenant_backup.api.schema import Schema, custom_resource_definitions
from tenant_backup.api.tenant_restore import _FIXED, _FIXED_OPTIONAL
from tenant_backup.api.values import duration_seconds, quantity_bytes

from .examples import BACKUP, REPLACE, S3, SCHEDULE, TENANT, changed


def test_generated_files_are_fresh() -> None:
    """Change the types or the chart, then run `python -m hack.generate`."""
    command = [sys.executable, "-m", "hack.generate", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_finds_a_stale_file_and_leaves_it_alone(tmp_path: Path) -> None:
    """A check that repairs what it finds would never fail in CI."""
    stale = tmp_path / "crds.yaml"
    stale.write_text("old")
    assert generate._settle(stale, "new", check=True)
    assert stale.read_text() == "old"
    assert generate._settle(stale, "new", check=False)
    assert not generate._settle(stale, "new", check=True)


def _nodes(schema: Schema, path: str) -> list[tuple[str, Schema]]:
    """All nodes of a schema with their paths."""
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            found += _nodes(schema[key], f"{path}[]")
    return found


@pytest.mark.parametrize("plural", [kind.NAMES.plural for kind in KINDS])
def test_every_string_and_list_has_a_limit_and_every_field_a_description(plural: str) -> None:
    """Limits keep objects small and CEL affordable; descriptions are `kubectl explain`."""
    version = custom_resource_definitions()[plural]["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    nodes = _nodes(properties["spec"], "spec") + _nodes(properties["status"], "status")
    assert len(nodes) > 10
    for path, node in nodes:
        if node["type"] == "string" and "enum" not in node and node.get("format") != "date-time":
            assert "maxLength" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        assert "description" in node or path.endswith("[]"), path


def test_a_restore_fixes_every_field_but_approval_and_undo() -> None:
    """A new field must be put into the rule, or here."""
    fields = TenantRestore.model_fields["spec"].annotation.model_fields  # type: ignore[union-attr]
    names = {field.alias for field in fields.values()}
    assert names == {*_FIXED, *_FIXED_OPTIONAL, "approval", "undo"}


def test_objects_of_the_api_server_become_frozen_types() -> None:
    """Names are camelCase outside and snake_case inside; fields nobody knows yet are no error."""
    tenant = Tenant.model_validate(changed(TENANT, exclusions__columns=[
        {"table": "public.users", "column": "password", "else": "!"},
    ], someday="maybe"))  # fmt: skip
    assert (tenant.slug, tenant.spec.database.tcp_port) == ("acme", 5432)
    assert tenant.spec.exclusions.columns[0].replacement == "!"
    assert BackupStore.model_validate(S3).spec.s3 is not None
    assert TenantBackup.model_validate(BACKUP).spec.deadline == "6h"
    assert not TenantRestore.model_validate(REPLACE).spec.undo
    schedule = BackupSchedule.model_validate(SCHEDULE)
    assert schedule.spec.retention is not None
    assert schedule.spec.retention.keep_last == 7
    with pytest.raises(ValidationError, match="frozen"):
        tenant.spec.slug = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1h30m", 5400), ("1h1m1s", 3661)]
)
def test_durations_are_read_in_seconds(text: str, seconds: int) -> None:
    """Hours, minutes, seconds, in this order."""
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "6 h", "1d", "-1h", "1m1h", "h", "6h\n"])
def test_what_is_not_a_duration_says_how_to_write_one(text: str) -> None:
    """One ValueError with an example."""
    with pytest.raises(ValueError, match="1h30m"):
        duration_seconds(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("65536", 65536), ("64Ki", 65536), ("500k", 500_000), ("1.5Mi", 1_572_864), ("2G", 2_000_000_000)],
)
def test_quantities_are_read_in_bytes(text: str, count: int) -> None:
    """Decimal and binary units, as Kubernetes writes them."""
    assert quantity_bytes(text) == count


@pytest.mark.parametrize("text", ["", "Mi", "1MiB", "-1Mi", "1e6", "1 Mi", "1K", "1Mi\n"])
def test_what_is_not_a_quantity_says_how_to_write_one(text: str) -> None:
    """One ValueError with an example."""
    with pytest.raises(ValueError, match="100Mi"):
        quantity_bytes(text)


def test_each_engine_has_its_own_port() -> None:
    """Unless the Tenant names one."""
    named = [
        changed(TENANT, database__engine="MariaDB"),
        changed(TENANT, database__engine="MariaDB", database__port=1),
    ]
    assert [Tenant.model_validate(each).spec.database.tcp_port for each in named] == [3306, 1]
