"""Makes golden archives, once: python -m tests.archive.golden.make NEW_FOLDER, for example v2.

The real stages on a real PostgreSQL; only `boundaries` is written by the archive alone, with small limits.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hack.lab.chain import Chain
from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from tenant_backup.archive import chunks, names, writer
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import IndexKey
from tenant_backup.archive.manifest import Sizes, parse, sign
from tenant_backup.archive.rewrap import rewrap
from tenant_backup.contract import job as jobs
from tenant_backup.stores import connect
from tests.archive.sample import Folder, Keyring, open_reader, read_all

HERE = Path(__file__).parent
FIRST, SECOND = "acme_2026-01-15_14-30-25", "acme_2026-01-16_14-30-25"
TENANT = jobs.Tenant("5ca1ab1e-0000-4000-8000-000000000000", "default", "acme", "acme")
LIMITS = {
    (chunks, "CHUNK_MIN"): 24 << 10,
    (chunks, "CHUNK_MAX"): 64 << 10,
    (chunks, "FRAME_MAX"): 512 << 10,
    (chunks, "_spare"): deque(),
    (writer, "FRAME_MAX"): 3000,
    (writer, "PART_CHUNKS"): 40,
    (writer, "PACK_TARGET"): 6000,
    (writer, "_INDEX_PACK_TARGET"): 2000,
}


def main(target: Path) -> None:
    """Make all archives of one format version in a new folder."""
    target.mkdir()
    identities = [pyrage.x25519.Identity.generate() for _ in range(2)]
    with host_postgres() as server, tempfile.TemporaryDirectory() as work:
        chain = Chain(Path(work))
        chain.write_keys()
        for secret in ("database", "admin"):
            chain.write_secret(secret, {"username": "postgres", "password": PASSWORD})
        first = _job(server, FIRST, identities[0])
        server.sql("CREATE DATABASE golden")
        server.sql((HERE / "database.sql").read_text(), "golden")
        _back_up(chain, replace(first, encryption="None", recipients=[]))
        _keep(chain, target / "none")
        _back_up(chain, first)
        _keep(chain, target / "full")
        _back_up(chain, first)
        server.sql((HERE / "change.sql").read_text(), "golden")
        _back_up(chain, replace(first, backup_id=SECOND, uid=str(uuid.uuid4())))
        _keep(chain, target / "chain")
    keys = Keyring(
        IndexKey(chain.index_key),
        Ed25519PrivateKey.from_private_bytes(chain.signing_seed),
        str(identities[0]),
        [str(identities[0].to_public())],
    )
    _let_in(target, keys, identities[1])
    _cut_small(target, keys)
    secrets = {
        "identity": keys.identity_text,
        "newIdentity": str(identities[1]),
        "signingKey": chain.signing_key,
        "indexKey": chain.index_key.hex(),
        "signingSeed": chain.signing_seed.hex(),
    }
    _write(target / "keys.json", secrets)
    contents = {}
    for manifest in sorted(target.glob("*/manifests/*")):
        archive, backup_id = Folder(manifest.parent.parent), manifest.name
        reader = open_reader(archive, keys, backup_id=backup_id)
        contents[f"{archive.root.name}/{backup_id}"] = summary(read_all(reader))
    _write(target / "contents.json", contents)


def summary(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Return length and SHA-256 of every segment."""
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(contents.items())
    }


def _job(server: HostPostgres, backup_id: str, identity: pyrage.x25519.Identity) -> jobs.Backup:
    return jobs.Backup(
        uid=str(uuid.uuid4()),
        backup_id=backup_id,
        name="acme-1",
        tenant=TENANT,
        database=jobs.Database("PostgreSQL", "127.0.0.1", server.port, "golden", tls_mode="Disable"),
        store=jobs.Store("volume"),
        recipients=[str(identity.to_public())],
    )


def _back_up(chain: Chain, job: jobs.Backup) -> None:
    ended = chain.run(job)
    for stage, end in ended.items():
        if end.code:
            sys.exit(f"{stage} ended with {end.code}: {end.result} {end.stderr}")


def _keep(chain: Chain, target: Path) -> None:
    shutil.move(chain.folder / "store" / "acme", target)


def _let_in(target: Path, keys: Keyring, identity: pyrage.x25519.Identity) -> None:
    shutil.copytree(target / "full", target / "rewrapped")
    place = connect(jobs.Store("volume", prefix=target.name), "rewrapped", secrets=HERE, volume=target.parent)
    done = rewrap(place, "acme", keys.public, keys.identity, [str(identity.to_public())])
    if done.skipped or not done.written:
        sys.exit(f"rewrapping: {done}")


def _cut_small(target: Path, keys: Keyring) -> None:
    """Write `full` again with small limits."""
    folder = Folder(target / "boundaries")
    with ExitStack() as limits:
        for (module, name), value in LIMITS.items():
            limits.enter_context(patch.object(module, name, value))
        reader = open_reader(Folder(target / "full"), keys, backup_id=FIRST)
        catalogue, used = reader.catalogue(), keys.writer_keys()
        archive = writer.ArchiveWriter(used, "acme", folder.root.parent, folder.take)
        for name, content in read_all(reader).items():
            segment = catalogue.segments[name]
            to = archive.segment(name, Kind[segment.kind.upper()], segment.table)
            to.write(content)
            to.end()
            to.close()
        written = archive.finish(catalogue.engine)
    stored = sum(ref.length for ref in (*written.packs, *written.lists))
    manifest = replace(
        parse((target / "full" / names.manifest(FIRST)).read_bytes()),
        bytes=Sizes(written.logical, stored, written.added),
        packs=written.packs,
        lists=written.lists,
        catalogue=written.catalogue,
    )
    folder.put(names.manifest(FIRST), sign(manifest, keys.signing))
    for name in ("TENANT", used.stored_name()):
        folder.put(name, (target / "full" / name).read_bytes())


def _write(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(HERE / sys.argv[1])
