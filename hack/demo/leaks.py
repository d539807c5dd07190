"""Opens every backup of a tenant as its owner could, and looks for what must not be there."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.lab.servers import S3
from tenant_backup.archive.keys import Identity
from tenant_backup.archive.manifest import Manifest, verify
from tenant_backup.archive.reader import ArchiveReader, open_index_key


class Folder:
    """The objects of one tenant's prefix, copied out of the store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, name: str, length: int | None, sha256: str | None) -> Path:  # noqa: ARG002 - the reader checks
        """Return a copy that the reader may unlink."""
        copy = Path(tempfile.mkstemp()[1])
        shutil.copyfile(self._folder / name, copy)
        return copy

    def length(self, name: str) -> int | None:
        """Return the size of an object in bytes."""
        path = self._folder / name
        return path.stat().st_size if path.exists() else None


def occurrences_in_backups(
    store: S3, prefix: str, identity: str, signing_key: str, wanted: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Return how many of the wanted texts occur in the plaintext of any backup below `prefix`, by kind.

    `prefix` is bucket/prefix/slug; the identity is the owner's, the signing key that of Tenant status.
    """
    archive = store.kubectl.run(
        "exec", f"deploy/{store.name}", "--", "tar", "-C", f"/data/{prefix}", "-cf", "-", "."
    )
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as objects:
            objects.extractall(folder, filter="data")
        plain = plaintext(Path(folder), identity, signing_key)
    return {kind: sum(text.encode() in plain for text in texts) for kind, texts in wanted.items()}


def plaintext(folder: Path, identity: str, signing_key: str) -> bytes:
    """Return all that a tenant's backups say and hold, decrypted; `folder` is its prefix."""
    manifests = sorted((folder / "manifests").iterdir())
    return b"".join(_plaintext(folder, path, identity, signing_key) for path in manifests)


def _plaintext(folder: Path, path: Path, identity: str, signing_key: str) -> bytes:
    manifest: Manifest = verify(path.read_bytes(), signing_key)
    objects, owner = Folder(folder), Identity.parse(identity)
    reader = ArchiveReader(manifest, open_index_key(manifest, None, owner, objects), owner, objects)
    catalogue = reader.catalogue()
    blocks = (block for segment in catalogue.segments.values() for block in reader.blocks(segment))
    return b"".join((path.read_bytes(), json.dumps(catalogue.engine).encode(), *blocks))
