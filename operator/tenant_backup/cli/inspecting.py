"""`inspect`: one backup in words; with the identity also its tables."""

from __future__ import annotations

from typing import Any

from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.manifest import Manifest, document

from . import console, volumes


def described(manifest: Manifest, sha256: str, signature: str, catalogue: Catalogue | None) -> dict[str, Any]:
    """Return a backup for machines: its manifest, and its tables where the catalogue was opened."""
    found: dict[str, Any] = {**document(manifest), "checksum": f"sha256:{sha256}", "signature": signature}
    if catalogue is not None:
        found["tableList"] = [_table(table, catalogue) for table in catalogue.engine["tables"]]
        found["moduleList"] = _modules_of(found["tableList"])
        found["volumeList"] = volumes.described(catalogue)
    return found


def in_words(manifest: Manifest, sha256: str, signature: str, catalogue: Catalogue | None) -> str:
    """Return a backup for people."""
    lines = [
        ("Backup", manifest.backup_id),
        ("Tenant", f"{manifest.tenant.namespace}/{manifest.tenant.name} (slug {manifest.tenant.slug})"),
        ("Signature", signature),
        *_moments(manifest),
        ("Made", f"{manifest.times.started} to {manifest.times.completed}, by version {manifest.writer}"),
        ("Server", f"{manifest.server.engine} {manifest.server.version}".strip() or "none"),
        (
            "Contents",
            f"{manifest.tables} tables, {manifest.rows} rows, {_files(manifest)}{_modules(manifest)}",
        ),
        ("Read", console.size(manifest.bytes.logical)),
        (
            "Stored",
            f"{console.size(manifest.bytes.stored)} in {len(manifest.packs) + len(manifest.lists)} objects",
        ),
        ("Added", f"{console.size(manifest.bytes.added)} by this run"),
        ("Encryption", _encryption(manifest)),
        ("Checksum", f"sha256:{sha256}"),
    ]
    text = "\n".join(f"{head + ':':15}{value}" for head, value in lines)
    if catalogue is None:
        return text
    return "\n\n".join([text, *(_tables(catalogue) if manifest.server.engine else []), *_volumes(catalogue)])


def _moments(manifest: Manifest) -> list[tuple[str, str]]:
    files = manifest.files
    rows = [("Rows are from", f"{manifest.times.snapshot} ({manifest.consistency})")]
    return (rows if manifest.server.engine else []) + (
        [("Files read", f"{files.read_from} to {files.read_to}")] if files.read_from else []
    )


def _files(manifest: Manifest) -> str:
    files = manifest.files
    if not files.read_from:
        return ""
    changed = f" ({files.changed} changed while they were read)" if files.changed else ""
    return f"{files.count} files{changed}, "


def _modules(manifest: Manifest) -> str:
    if manifest.partial:
        return f"only modules {', '.join(manifest.modules.only)}"
    return f"modules {', '.join(manifest.modules.defined)}" if manifest.modules.defined else "no modules"


def _encryption(manifest: Manifest) -> str:
    encryption = manifest.encryption
    if encryption.mode == "None":
        return "None: whoever can read the store can read the rows"
    return f"{encryption.mode} for {', '.join(encryption.recipients)} (key id {encryption.key_id})"


def _tables(catalogue: Catalogue) -> list[str]:
    rows, tables = [], [_table(table, catalogue) for table in catalogue.engine["tables"]]
    for told in tables:
        left_out = "rows left out" if told["withoutRows"] else ", ".join(told["excludedColumns"])
        rows.append([told["name"], str(told["rows"]), console.size(told["bytes"]), left_out or "-"])
    modules = [
        [one["name"], str(len(one["tables"])), str(one["rows"]), console.size(one["bytes"])]
        for one in _modules_of(tables)
    ]
    listed = [console.table(("TABLE", "ROWS", "BYTES", "EXCLUDED"), rows)]
    return listed + ([console.table(("MODULE", "TABLES", "ROWS", "BYTES"), modules)] if modules else [])


def _modules_of(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each module has in the backup; a table may be in several."""
    names = dict.fromkeys(name for table in tables for name in table["modules"])
    members = {name: [table for table in tables if name in table["modules"]] for name in names}
    return [
        {
            "name": name,
            "tables": [table["name"] for table in found],
            "rows": sum(table["rows"] for table in found),
            "bytes": sum(table["bytes"] for table in found),
        }
        for name, found in members.items()
    ]


def _volumes(catalogue: Catalogue) -> list[str]:
    heads = ("VOLUME", "FILES", "BYTES", "CHANGED", "SKIPPED")
    rows = [
        [
            volume["name"],
            str(volume["files"]),
            console.size(volume["bytes"]),
            str(volume["changed"]["count"]),
            str(volume["skipped"]["count"]),
        ]
        for volume in catalogue.engine.get("files", ())
    ]
    return [console.table(heads, rows), *_files_of_modules(catalogue)] if rows else []


def _files_of_modules(catalogue: Catalogue) -> list[str]:
    rows = [
        [module["name"], volume["name"], str(module["files"]), console.size(module["bytes"])]
        for volume in catalogue.engine["files"]
        for module in volume["modules"]
    ]
    return [console.table(("MODULE", "VOLUME", "FILES", "BYTES"), rows)] if rows else []


def _table(table: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    return {
        "name": table["name"],
        "rows": table["rows"],
        "bytes": sum(catalogue.segments[name].bytes for name in table["segments"]),
        "excludedColumns": [item["column"] for item in table["excluded"]],
        "withoutRows": not table["withRows"],
        "modules": table.get("modules", []),
    }
