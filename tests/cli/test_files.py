"""Files and the command line, which works with databases only: it says so, and never passes over them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hack.lab.kubectl import ROOT
from tenant_backup.archive import manifest as manifests
from tenant_backup.archive.lists import Catalogue
from tenant_backup.cli import backing_up, inspecting
from tenant_backup.cli.chosen import Chosen
from tenant_backup.contract.reasons import Failure, Reason
from tests.decisions.objects import tenant

GOLDEN = ROOT / "tests/archive/golden/v1/chain/manifests"
FILES = manifests.Files(7, 700, 2, 1, "2024-01-15T14:30:26Z", "2024-01-15T14:31:00Z")
UPLOADS = {
    "name": "uploads",
    "persistentVolumeClaim": {"claimName": "acme-uploads"},
    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
}
VOLUME = {
    "name": "uploads",
    "segment": "files/uploads",
    "files": 7,
    "bytes": 700,
    "changed": {"count": 2, "paths": ["a", "b"]},
    "skipped": {"count": 1, "paths": ["pipe"]},
}


def manifest(**changes: Any) -> manifests.Manifest:
    """A backup that was made before there were files, with changes."""
    newest = max(GOLDEN.iterdir())
    return dataclasses.replace(manifests.parse(newest.read_bytes()), **changes)


def chosen(found: manifests.Manifest) -> Chosen:
    """It, to work with; nothing of the store is looked at."""
    return Chosen(None, found, "", "", None, "")  # type: ignore[arg-type]


def test_a_manifest_without_a_word_about_files_has_none() -> None:
    """And is of all that the tenant had."""
    found = manifest()
    assert (found.contents, found.files) == ("All", manifests.NO_FILES)
    assert "files" not in manifests.facts(found, "")
    assert manifests.facts(manifest(files=FILES), "")["files"] == {"count": 7, "changed": 2, "skipped": 1}


def test_inspect_tells_of_files_beside_tables_or_alone() -> None:
    """How many, from when, by volume, and what is not as it should be."""
    catalogue = Catalogue({"tables": [], "files": [VOLUME]}, {})
    both = inspecting.in_words(manifest(files=FILES), "", "good", catalogue)
    assert "7 files (2 changed while they were read)" in both
    assert "Rows are from" in both
    assert both.splitlines()[-1].split() == ["uploads", "7", "700", "B", "2", "1"]
    alone = inspecting.in_words(manifest(files=FILES, server=manifests.Server("", "")), "", "good", None)
    assert "Rows are from" not in alone
    assert "Files read: 2024-01-15T14:30:26Z to 2024-01-15T14:31:00Z" in " ".join(alone.split())
    assert inspecting.described(manifest(files=FILES), "", "good", catalogue)["volumeList"] == [VOLUME]


def test_restore_and_export_say_that_files_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """And refuse a backup of nothing else, with two ways out."""
    chosen(manifest()).require_engine()
    assert capsys.readouterr().err == ""
    chosen(manifest(files=FILES)).require_engine()
    assert "7 files are left out" in capsys.readouterr().err
    with pytest.raises(Failure, match=r"docs/restore.py") as caught:
        chosen(manifest(files=FILES, server=manifests.Server("", ""))).require_engine()
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT


def test_a_backup_without_a_cluster_is_of_the_database(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A Tenant of files alone is refused."""
    backing_up._database(tenant(more={"files": [UPLOADS]}))
    assert "contents: Database" in capsys.readouterr().err
    with pytest.raises(Failure, match="backs up databases only"):
        backing_up._database(tenant(more={"database": None, "files": [UPLOADS]}))
