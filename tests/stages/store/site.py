"""What the tests of the store's stages share: places, jobs, manifests, and a stand-in for `archive`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenant_backup.archive.manifest import (
    BackupIdentity,
    CataloguePlace,
    facts,
    parse,
    sign,
)
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.archive.writer import Written
from tenant_backup.contract import job as jobs
from tenant_backup.stages import wire
from tenant_backup.stores import connect
from tenant_backup.stores.base import Store, digest_of
from tests.archive.sample import Keyring, describe
from tests.stages.pod import BACKUP_ID, TENANT, Pod
from tests.stores.s3_server import BUCKET, ROOT

UID = "11111111-1111-1111-1111-111111111111"
OTHER_UID = "22222222-2222-2222-2222-222222222222"
KEYS = Keyring.fresh()


OLDER_LIST = b"ten  bytes"  # an index pack of an earlier backup


def manifest_of(backup_id: str = BACKUP_ID, uid: str = UID, rows: int = 2) -> bytes:
    """A real, signed manifest that needs OLDER_LIST; `rows` makes it differ from others."""
    digest = digest_of(OLDER_LIST)
    index = ObjectRef("0" * 32, digest.length, digest.sha256, 20)
    place = CataloguePlace(index.id, 0, 1)
    written = Written(packs=(), lists=(index,), catalogue=place, logical=100, added=10)
    manifest = describe(KEYS, written, backup_id)
    return sign(dataclasses.replace(manifest, backup=BackupIdentity("acme-1", uid), rows=rows), KEYS.signing)


def facts_of(manifest: bytes) -> dict[str, Any]:
    """The facts `archive` sends with this manifest."""
    return facts(parse(manifest), hashlib.sha256(manifest).hexdigest())


@dataclass
class Site:
    """A pod and the store its stages use."""

    pod: Pod
    described: jobs.Store

    def backup(self, **changes: Any) -> jobs.Backup:
        """A backup of tenant acme into this store."""
        job = dataclasses.replace(self.pod.backup_job(), uid=UID, store=self.described)
        return dataclasses.replace(job, **changes)

    def with_older_list(self) -> Site:
        """Put what the manifests of these tests need; return itself."""
        self.store().put(f"lists/{'0' * 32}", OLDER_LIST, digest_of(OLDER_LIST))
        return self

    def restore(self) -> jobs.Restore:
        """A restore of tenant acme from this store."""
        return dataclasses.replace(self.pod.restore_job(), store=self.described)

    def delete(self, uid: str = UID) -> jobs.Delete:
        """Deletes that backup."""
        return jobs.Delete(uid, BACKUP_ID, TENANT, self.described)

    def probe(self) -> jobs.Probe:
        """Probes this store."""
        return jobs.Probe("store-uid", "cluster-1", self.described)

    def store(self, under: str = TENANT.slug) -> Store:
        """The store as a stage sees it."""
        return connect(self.described, under, secrets=self.pod.root / "secrets", volume=self.volume)

    @property
    def volume(self) -> Path:
        """The mounted volume."""
        return self.pod.root / "store"

    def names(self, folder: str) -> list[str]:
        """The objects below `folder`."""
        return [entry.name for entry in self.store().entries(folder)]

    def object(self, name: str) -> bytes:
        """One object's bytes."""
        return b"".join(self.store().chunks(name))


def s3_site(pod: Pod, endpoint: str, user: tuple[str, str] = ROOT) -> Site:
    """A pod that reaches an S3 server as `user`."""
    for key, value in zip(("accessKeyId", "secretAccessKey"), user, strict=True):
        pod.secret("store", key, value.encode())
    return Site(pod, jobs.Store("s3", BUCKET, f"test-{pod.root.name}", endpoint, "", "s3-keys"))


def volume_site(pod: Pod) -> Site:
    """A pod with a volume."""
    (pod.root / "store").mkdir()
    return Site(pod, jobs.Store("volume", prefix="prod"))


@dataclass
class Archive:
    """Speaks to `upload` as the stage `archive` does."""

    pod: Pod
    connection: socket.socket = field(init=False)
    reader: wire.Reader = field(init=False)

    def __post_init__(self) -> None:
        self.connection = wire.connect(self.pod.run / "upload.sock", "upload")
        self.reader = wire.Reader(self.connection, "upload")

    def spool(self, name: str, data: bytes) -> dict[str, Any]:
        """Write a spool file; return the request for it."""
        path = self.pod.root / "spool" / name.replace("/", "-")
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return {"name": name, "path": str(path), "length": len(data), "sha256": sha256}

    def put(self, name: str, data: bytes) -> None:
        """Hand on an object without waiting."""
        wire.send(self.connection, {"put": self.spool(name, data)})

    def stored(self, count: int) -> set[str]:
        """Wait for so many acknowledgements."""
        return {self.reader.message()["stored"] for _ in range(count)}

    def commit(self, manifest: bytes, backup_id: str = BACKUP_ID) -> None:
        """Hand on the manifest without waiting."""
        request = self.spool(f"manifests/{backup_id}", manifest)
        wire.send(self.connection, {"commit": {**request, "facts": facts_of(manifest)}})

    def committed(self) -> str:
        """Wait for the commit; return its SHA-256."""
        return str(self.reader.message()["committed"]["sha256"])

    def die(self) -> None:
        """End without a word."""
        self.connection.close()


def packs(count: int, length: int = 100_000) -> dict[str, bytes]:
    """Packs of random bytes by name."""
    made = {}
    for _ in range(count):
        pack_id = os.urandom(16).hex()
        made[f"packs/{pack_id[:2]}/{pack_id}"] = os.urandom(length)
    return made
