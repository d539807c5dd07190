"""A small real archive in a folder, and the keys of a tenant who does not exist."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup.archive import names
from tenant_backup.archive.chunks import chunker_seed
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import Identity, IndexKey, Mode, TenantKeys, WriterKeys
from tenant_backup.archive.known import Known, open_known
from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.manifest import (
    FORMAT,
    FORMAT_VERSION,
    BackupIdentity,
    Encryption,
    Manifest,
    Modules,
    Server,
    Sizes,
    TenantIdentity,
    Times,
    parse,
    sign,
)
from tenant_backup.archive.reader import ArchiveReader, open_index_key, open_manifest
from tenant_backup.archive.writer import ArchiveWriter, Spooled, Written
from tenant_backup.contract.reasons import Failure

BACKUP_ID = "acme_2024-01-15_14-30-25"
Segments = dict[str, tuple[Kind, Iterable[bytes]]]


@dataclass
class Folder:
    """The objects of one tenant in a folder: the plainest thing that can be read from."""

    root: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    fetched: list[str] = field(default_factory=list)

    def put(self, name: str, data: bytes) -> None:
        """Put an object, or another one in its place."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(data)

    def take(self, spooled: Spooled) -> None:
        """Take an object from the writer, as a store does."""
        (self.root / spooled.name).parent.mkdir(parents=True, exist_ok=True)
        spooled.path.rename(self.root / spooled.name)

    def fetch(self, name: str, length: int | None, sha256: str | None) -> Path:
        """Copies without looking at length and checksum: the reader must not rely on the store."""
        copy = self.root / f"copy-{secrets.token_hex(8)}"
        shutil.copyfile(self.root / name, copy)
        with self.lock:
            self.fetched.append(name)
        return copy

    def length(self, name: str) -> int | None:
        """Return an object's length."""
        path = self.root / name
        return path.stat().st_size if path.exists() else None

    def names(self) -> list[str]:
        """Return the names of all objects."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@dataclass
class Keyring:
    """Everything secret of one tenant."""

    index: IndexKey
    signing: Ed25519PrivateKey
    identity_text: str
    recipients: list[str]
    mode: Mode = "Age"

    @classmethod
    def fresh(cls) -> Keyring:
        """Make all keys."""
        identity = pyrage.x25519.Identity.generate()
        return cls(
            IndexKey(secrets.token_bytes(32)),
            Ed25519PrivateKey.generate(),
            str(identity),
            [str(identity.to_public())],
        )

    @property
    def seed(self) -> int:
        """Where this tenant's rows are cut."""
        return chunker_seed(self.writer_keys().index)

    @property
    def identity(self) -> Identity:
        """What a restore has."""
        return Identity.parse(self.identity_text)

    @property
    def public(self) -> str:
        """What a restore trusts."""
        return self.signing.public_key().public_bytes_raw().hex()

    def writer_keys(self) -> WriterKeys:
        """What a backup has."""
        return WriterKeys.fresh(self.tenant, self.mode, self.recipients)

    @property
    def tenant(self) -> TenantKeys:
        """What the cluster keeps."""
        return TenantKeys(self.index, self.signing.private_bytes_raw())


def write(
    folder: Folder,
    keys: Keyring,
    segments: Segments,
    backup_id: str = BACKUP_ID,
    known: Known | None = None,
    fingerprint: str = "",
) -> Written:
    """Write a whole backup of tenant acme into `folder`, as the archive stage does.

    `fingerprint` is that of every segment.
    """
    used = keys.writer_keys()
    writer = ArchiveWriter(used, "acme", folder.root, folder.take, known=known)
    for segment_id, (kind, pieces) in segments.items():
        if fingerprint and writer.take_over(segment_id, fingerprint):
            continue
        segment = writer.segment(segment_id, kind, "public.t" if kind is Kind.ROWS else None)
        for piece in pieces:
            segment.write(piece)
        segment.end(fingerprint)
        segment.close()
    written = writer.finish({"tables": [], "engine": "test"})
    manifest = describe(keys, written, backup_id)
    folder.put(names.manifest(backup_id), sign(manifest, keys.signing))
    folder.put(used.stored_name(), used.stored())
    return written


def describe(keys: Keyring, written: Written, backup_id: str = BACKUP_ID) -> Manifest:
    """The manifest of what was written."""
    stored = sum(ref.length for ref in (*written.packs, *written.lists))
    return Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        writer="0",
        backup_id=backup_id,
        backup=BackupIdentity("acme-1", "11111111-2222-3333-4444-555555555555"),
        tenant=TenantIdentity("cluster", "default", "acme", "acme"),
        times=Times("2024-01-15T14:30:25Z", "2024-01-15T14:30:26Z", "2024-01-15T14:30:29Z"),
        server=Server("PostgreSQL", "17.2"),
        encryption=Encryption.of(keys.writer_keys()),
        consistency="Snapshot",
        partial=False,
        modules=Modules(("hr",), ()),
        tables=1,
        rows=2,
        bytes=Sizes(written.logical, stored, written.added),
        packs=written.packs,
        lists=written.lists,
        catalogue=written.catalogue,
    )


def known_from(folder: Folder, keys: Keyring, backup_id: str, unusable: Collection[str] = ()) -> Known:
    """What that backup stored, as the next run of tenant acme finds it."""
    base = parse((folder.root / names.manifest(backup_id)).read_bytes())
    with tempfile.TemporaryDirectory() as spool:
        for ref in base.lists:
            shutil.copyfile(folder.root / names.index_pack(ref.id), Path(spool) / ref.id)
        known = open_known(base, keys.writer_keys().index, Path(spool), unusable)
        assert list(Path(spool).iterdir()) == []
    return known


def open_reader(
    folder: Folder,
    keys: Keyring,
    *,
    mounted: bytes | None = None,
    identity: Identity | None = None,
    backup_id: str = BACKUP_ID,
) -> ArchiveReader:
    """Open the backup with everything checked that is checked before a restore."""
    data = (folder.root / names.manifest(backup_id)).read_bytes()
    manifest = open_manifest(data, keys.public, backup_id, ("acme", "default", "acme"))
    whose = identity or keys.identity
    reader = ArchiveReader(manifest, open_index_key(manifest, mounted, whose, folder), whose, folder)
    try:
        reader.check_presence()
        reader.check_identity()
    except Failure:
        reader.close()
        raise
    return reader


def read_all(
    reader: ArchiveReader, hand_on: Callable[[str, bytes], None] = lambda _id, _block: None
) -> dict[str, bytes]:
    """Read every segment; `hand_on` sees each block as it leaves the reader."""
    contents: dict[str, bytes] = {}
    with closing(reader):
        catalogue: Catalogue = reader.catalogue()
        for segment_id, segment in catalogue.segments.items():
            parts = []
            for block in reader.blocks(segment):
                hand_on(segment_id, block)
                parts.append(block)
            contents[segment_id] = b"".join(parts)
    return contents
