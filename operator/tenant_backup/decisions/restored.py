"""What a TenantRestore restores: its target names it, and Replace without any means the Tenant's database."""

from __future__ import annotations

from dataclasses import replace

from tenant_backup.contract import job as contract

from . import described
from .observed import RestoreSeen


def restores_database(seen: RestoreSeen) -> bool:
    """Whether a database is created or replaced."""
    target = seen.restore.spec.target
    return target.database is not None or (seen.restore.spec.strategy == "Replace" and not target.files)


def volumes(seen: RestoreSeen) -> list[contract.Volume]:
    """Return the volumes that are filled, the Tenant's or those that are named instead.

    Without those that the Tenant does not have any more.
    """
    assert seen.tenant
    known = {volume.name: volume for volume in described.volumes(seen.tenant)}
    return [
        replace(
            known[files.name],
            claim=other.claim_name if other else known[files.name].claim,
            select=selected(seen).get(files.name, []),
        )
        for files in seen.restore.spec.target.files
        if files.name in known
        for other in [files.persistent_volume_claim]
    ]


def selected(seen: RestoreSeen) -> dict[str, list[str]]:
    """Return the patterns of what is restored, by volume; nothing: everything is."""
    found: dict[str, list[str]] = {}
    for text in seen.restore.spec.select.files if seen.restore.spec.select else ():
        name, _, pattern = text.partition(":")
        found.setdefault(name, []).append(pattern)
    return found
