"""One backup that somebody chose and whose signature is good: what most commands begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

from tenant_backup.archive import manifest as manifests
from tenant_backup.archive.key_finder import KeyFinder
from tenant_backup.archive.keys import Identity
from tenant_backup.archive.manifest import Manifest
from tenant_backup.contract.reasons import Failure, Reason

from . import console, options
from .opened import manifest_bytes, resolve, small, trusted
from .options import Access, Opened
from .server import PORTS, Engine


@dataclass(frozen=True)
class Chosen:
    """A backup to work with. Its manifest was signed by `trust`."""

    opened: Opened
    manifest: Manifest
    sha256: str  # of the manifest, hex
    trust: str  # public key, hex
    identity: Identity | None
    identity_text: str

    def require_identity(self) -> None:
        """Raise Failure(KEY_MISSING) when rows are wanted and nobody's key is there to read them."""
        encryption = self.manifest.encryption
        if self.identity is None and encryption.mode != "None":
            message = f"backup {self.manifest.backup_id} is encrypted for {', '.join(encryption.recipients)}"
            raise Failure(Reason.KEY_MISSING, f"{message}; name the key file of one of them with --identity")

    @property
    def has_rows(self) -> bool:
        """Whether a database is in it."""
        return bool(self.manifest.server.engine)

    @property
    def has_files(self) -> bool:
        """Whether there are volumes in it, be they empty."""
        return bool(self.manifest.files.read_from)

    def say_left_out(self, *, rows: bool = False, files: bool = False) -> None:
        """Say what of it nobody asked for."""
        if rows and self.has_rows:
            console.say(f"its {self.manifest.tables} tables are left out: --database takes them")
        if files and self.has_files:
            how = "`restore --files` takes them, as does `export --format zip`"
            console.say(f"its {self.manifest.files.count} files are left out: {how}")

    def require_engine(self) -> Engine:
        """Return whose rows it has. Raises Failure(UNSUPPORTED_CONTENT) where nothing here knows it."""
        if not self.has_rows:
            message = f"backup {self.manifest.backup_id} has files only; restore them with --files, or export"
            raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message} them with --format zip or directory")
        engine, backup_id = self.manifest.server.engine, self.manifest.backup_id
        if engine not in PORTS:
            message = f"backup {backup_id} is of {engine}, which this version does not know; use a newer one"
            raise Failure(Reason.UNSUPPORTED_CONTENT, message)
        if engine != "PostgreSQL" and find_spec("MySQLdb") is None:
            message = f"backup {backup_id} is of {engine}, and its client library is not installed; run"
            advice = "pip install 'tenant-backup-operator[runner,mariadb]'"
            raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message} {advice}")
        return cast(Engine, engine)


@contextmanager
def chosen(access: Access, backup_id: str) -> Iterator[Chosen]:
    """Reach the store and find the backup. Raises Failure, or click.UsageError when nobody is believed."""
    options.require_trust(access)
    identity, text = options.read_identity(access.identity_file) if access.identity_file else (None, "")
    with options.opened(access) as opened:
        key = access.trust or _key_in_store(opened, backup_id, identity)
        wanted = resolve(opened.store, backup_id, key)
        manifest, sha256 = trusted(opened.store, access.where.slug, wanted, key)
        yield Chosen(opened, manifest, sha256, key, identity, text)


def _key_in_store(opened: Opened, backup_id: str, identity: Identity | None) -> str:
    """Return the public half of the signing key that is in the store for the identity's owner."""
    store = opened.store
    wanted = resolve(store, backup_id, None)
    unchecked = manifests.parse(manifest_bytes(store, wanted))
    keys = KeyFinder(unchecked, identity, small(store)).tenant_keys()
    public = keys.signing().public_key().public_bytes_raw().hex()
    console.say(
        f"the signing key ed25519:{public} was taken from the store itself: damage is found, a forgery is not"
    )
    return public
