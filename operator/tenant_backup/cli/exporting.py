"""`export`: a backup as a file that needs nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tenant_backup
from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.manifest import Manifest, facts
from tenant_backup.archive.reader import ArchiveReader

from . import console, parcel, volumes
from .chosen import Chosen
from .opened import reading
from .server import Engine

_WRITERS = {"zip": parcel.write_zip, "directory": parcel.write_folder}
_SUFFIX = {"sql": ".sql", "zip": ".zip", "directory": ""}


def export(
    chosen: Chosen, form: Literal["sql", "zip", "directory"], out: Path | None, *, owners: bool
) -> dict[str, Any]:
    """Write the export; return {backupId, path, tables, rows, files}. Raises Failure, and leaves nothing."""
    manifest, opened = chosen.manifest, chosen.opened
    engine = chosen.require_engine() if form == "sql" or chosen.has_rows else None
    chosen.require_identity()
    if form == "sql":
        chosen.say_left_out(files=True)
    at = datetime.fromisoformat(manifest.times.snapshot).astimezone(UTC)
    name = f"{manifest.tenant.slug}_{at:%Y-%m-%d_%H-%M-%S}"
    target = _target(out, name + _SUFFIX[form])
    parcel.free(target)
    stored = manifest.bytes.stored
    with (
        console.progress("Exporting", stored) as bar,
        reading(manifest, chosen.identity, opened.store, opened.spool, bar.advance) as reader,
    ):
        reader.check_presence()
        reader.check_identity()
        catalogue = reader.catalogue()
        script = _script(engine, reader, catalogue, opened.folder, owners=owners) if engine else None
        if form == "sql":
            assert script is not None
            parcel.write_sql(target, script)
        else:
            contents = parcel.Contents(
                at,
                script,
                f"{name}.sql",
                {"metadata.json": _metadata(manifest, chosen.sha256, catalogue)},
                partial(volumes.unpack, reader, catalogue) if chosen.has_files else None,
            )
            _WRITERS[form](target, contents)
    return {
        "backupId": manifest.backup_id,
        "path": str(target),
        "tables": manifest.tables,
        "rows": manifest.rows,
        "files": manifest.files.count,
    }


def _script(
    engine: Engine, reader: ArchiveReader, catalogue: Catalogue, folder: Path, *, owners: bool
) -> Iterator[bytes]:
    # Late: each needs what is installed for its own engine only.
    if engine == "PostgreSQL":
        from . import script

        return script.Script(reader, catalogue, folder, owners).blocks()
    from . import mysql_script

    return mysql_script.Script(reader, catalogue, owners).blocks()


def _target(out: Path | None, name: str) -> Path:
    if out is None:
        return Path(name)
    return out / name if out.is_dir() else out


def _metadata(manifest: Manifest, sha256: str, catalogue: Catalogue) -> bytes:
    document = {
        **facts(manifest, sha256),
        "tenant": {
            "namespace": manifest.tenant.namespace,
            "name": manifest.tenant.name,
            "slug": manifest.tenant.slug,
        },
        "snapshotAt": manifest.times.snapshot,
        "completedAt": manifest.times.completed,
        "server": {"engine": manifest.server.engine, "version": manifest.server.version},
        "partial": manifest.partial,
        "modules": list(manifest.modules.only or manifest.modules.defined),
        "tables": [described_table(table) for table in catalogue.engine["tables"]],
        "volumes": volumes.described(catalogue),
        "exportedBy": f"tenant-backup {tenant_backup.__version__}",
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def described_table(table: dict[str, Any]) -> dict[str, Any]:
    """Return one table of a catalogue for machines; `withoutRows` were left out by the Tenant's policy."""
    return {
        "name": table["name"],
        "rows": table["rows"],
        "columns": table["columns"],
        "excludedColumns": [item["column"] for item in table["excluded"]],
        "withoutRows": not table["withRows"],
    }
