"""Reads a backup: everything is checked before the first byte of a segment is handed on.

Knows objects only by name, through `Objects`; keeps a few packs on disk and a few frames in memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tenant_backup.contract.reasons import Failure, Reason

from . import names
from .frame import Damaged
from .key_finder import WRAPPED_MAX, KeyFinder
from .keys import Identity, IndexKey
from .lists import Catalogue, ChunkRef, Part, Segment, chunk_id, decode_catalogue, decode_chunks, part_id
from .manifest import Manifest, verify
from .objects import Objects, fetch_bytes
from .pack import Binding, ObjectRef, PackKind, PackReader

CACHED_PACKS = 6  # files on disk beside those in use
_FRAMES_KEPT = 4  # plaintexts per segment being read: deduplicated chunks jump between frames
_STATS_AT_ONCE = 8


class DamagedObject(Failure):
    """An object in the store is not what was written; `name` says which."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(Reason.CHECKSUM_MISMATCH, message)
        self.name = name


def open_manifest(  # noqa: PLR0913 - all that is known beforehand
    data: bytes,
    trusted_key: str,
    backup_id: str,
    tenant: tuple[str, str, str],
    sha256: str = "",
    *,
    earlier_keys: Sequence[str] = (),
) -> Manifest:
    """Check a manifest against all that is known about it beforehand, and read it.

    `tenant` is (slug, namespace, name); `sha256` is empty when it is not known; `earlier_keys` are trusted,
    too. The cluster id is not compared: after the loss of a cluster a backup is restored into another one.
    Raises Failure: CHECKSUM_MISMATCH, SIGNATURE_INVALID, CROSS_TENANT_ACCESS, UNSUPPORTED_CONTENT.
    """
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise Failure(
            Reason.CHECKSUM_MISMATCH,
            f"the manifest of {backup_id} in the store is not the one that was committed"
            " (its SHA-256 differs from status.checksum); choose another backup",
        )
    manifest = verify(data, trusted_key, *earlier_keys)
    if manifest.backup_id != backup_id:
        raise Failure(
            Reason.SIGNATURE_INVALID,
            f"what is stored as {backup_id} is the manifest of {manifest.backup_id}: somebody moved it;"
            " choose another backup",
        )
    owner = manifest.tenant
    if (owner.slug, owner.namespace, owner.name) != tenant:
        raise Failure(
            Reason.CROSS_TENANT_ACCESS,
            f"backup {backup_id} belongs to tenant {owner.namespace}/{owner.name} ({owner.slug}),"
            " not to the one it was asked for; name that tenant as the source",
        )
    return manifest


def open_index_key(
    manifest: Manifest, mounted: bytes | None, identity: Identity | None, objects: Objects
) -> IndexKey:
    """Return the index key of a backup: the mounted one if it is that, else the copy in the store.

    No identity is needed when the mounted key is the right one, or the backup is not encrypted.
    Raises Failure: WRONG_KEY, KEY_MISSING.
    """
    return KeyFinder(manifest, identity, _small(objects)).index_key(mounted)


class ArchiveReader:
    """One backup, opened. Segments may be read by several threads, each its own.

    Without an identity it reads the rows of a backup that is not encrypted, and the catalogue of any.
    """

    def __init__(
        self, manifest: Manifest, index: IndexKey, identity: Identity | None, objects: Objects
    ) -> None:
        self.manifest = manifest
        self._index = index
        self._objects = objects
        self._chunk_id_key = index.chunk_id_key()
        self._packs = {ref.id: ref for ref in manifest.packs}
        self._lists = {ref.id: ref for ref in manifest.lists}
        slug, keys = manifest.tenant.slug, KeyFinder(manifest, identity, _small(objects))

        def open_data(path: Path, ref: ObjectRef) -> PackReader:
            def frame_key(wrapped: bytes) -> bytes:
                return keys.data_key(wrapped, f"pack {ref.id}").frame_key(ref.id)

            return PackReader(path, Binding(PackKind.DATA, ref.id, slug, index), frame_key)

        def open_index(path: Path, ref: ObjectRef) -> PackReader:
            binding = Binding(PackKind.INDEX, ref.id, slug, index)
            return PackReader(path, binding, lambda _: index.frame_key(ref.id))

        self._data = _PackCache(objects, names.pack, open_data, CACHED_PACKS)
        self._index_packs = _PackCache(objects, names.index_pack, open_index, CACHED_PACKS)

    def check_presence(self) -> None:
        """Ask for the length of every object of this backup. Raises Failure(PACK_MISSING)."""
        objects = [(names.pack(ref.id), ref) for ref in self.manifest.packs]
        objects += [(names.index_pack(ref.id), ref) for ref in self.manifest.lists]
        with ThreadPoolExecutor(_STATS_AT_ONCE, "stat") as pool:
            lengths = pool.map(self._objects.length, [name for name, _ in objects])
            for (name, ref), length in zip(objects, lengths, strict=True):
                self._check_length(name, ref, length)

    def check_identity(self) -> None:
        """Open the first and the last pack: known before anything is restored is that rows can be read.

        They are of different runs, if any are. Raises Failure: WRONG_KEY, CHECKSUM_MISMATCH.
        """
        for ref in dict.fromkeys((*self.manifest.packs[:1], *self.manifest.packs[-1:])):
            with self._data.use(ref):
                pass  # the pack stays in the cache, it is needed soon

    def catalogue(self) -> Catalogue:
        """Read the catalogue. Raises Failure(CHECKSUM_MISMATCH)."""
        place = self.manifest.catalogue
        with self._index_packs.use(self._lists[place.list]) as pack, _naming(names.index_pack(place.list)):
            numbers = range(place.first, place.first + place.frames)
            return decode_catalogue(b"".join(pack.frame(number) for number in numbers))

    def blocks(self, segment: Segment) -> Iterator[bytes]:
        """Yield a segment's bytes, each chunk after it was checked against its id. Raises Failure.

        A block is at most a frame: chunks that lie side by side in it come together.
        """
        frames: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        sent = 0
        for part in segment.parts:
            for neighbours in _side_by_side(self.chunks(part)):
                block = self._checked(neighbours, frames)
                yield block
                sent += len(block)
        if sent != segment.bytes:
            raise _damaged(
                f"backup {self.manifest.backup_id}", f"a segment has {sent} bytes, not {segment.bytes}"
            )

    def close(self) -> None:
        """Remove the packs kept on disk."""
        self._data.close()
        self._index_packs.close()

    def chunks(self, part: Part) -> list[ChunkRef]:
        """Read one chunk list. Raises Failure(CHECKSUM_MISMATCH)."""
        name = names.index_pack(part.list)
        with _naming(name):
            if part.list not in self._lists:
                raise Damaged("it is not named in the manifest")
            with self._index_packs.use(self._lists[part.list]) as pack:
                chunks = decode_chunks(pack.frame(part.frame))
            if part_id(chunks, self._index) != part.id:
                raise Damaged(f"frame {part.frame} holds another chunk list")
            return chunks

    def _checked(self, chunks: Sequence[ChunkRef], frames: OrderedDict[tuple[str, int], bytes]) -> bytes:
        """Return what chunks of one frame hold, which lie side by side."""
        first, last = chunks[0], chunks[-1]
        with _naming(names.pack(first.pack)):
            plain = self._frame(first, frames)
            with memoryview(plain) as view:
                for chunk in chunks:
                    data = view[chunk.offset : chunk.offset + chunk.length]
                    if len(data) != chunk.length or chunk_id(data, self._chunk_id_key) != chunk.id:
                        raise Damaged(f"a chunk in frame {chunk.frame} is not what was written")
            return plain[first.offset : last.offset + last.length]

    def _frame(self, chunk: ChunkRef, frames: OrderedDict[tuple[str, int], bytes]) -> bytes:
        key = (chunk.pack, chunk.frame)
        if key in frames:
            frames.move_to_end(key)
            return frames[key]
        if chunk.pack not in self._packs:
            raise Damaged("it is not named in the manifest")
        with self._data.use(self._packs[chunk.pack]) as pack:
            frames[key] = pack.frame(chunk.frame)
        if len(frames) > _FRAMES_KEPT:
            frames.popitem(last=False)
        return frames[key]

    @staticmethod
    def _check_length(name: str, ref: ObjectRef, length: int | None) -> None:
        if length is None:
            raise Failure(
                Reason.PACK_MISSING,
                f"{name} is not in the store any more; bring it back or choose another backup",
            )
        if length != ref.length:
            raise _damaged(name, f"it has {length} bytes, not {ref.length}")


class _PackCache:
    """A few packs on disk, the least recently used one goes; each is fetched once at a time."""

    def __init__(
        self,
        objects: Objects,
        name: Callable[[str], str],
        open_pack: Callable[[Path, ObjectRef], PackReader],
        size: int,
    ) -> None:
        self._objects, self._name, self._open_pack, self._size = objects, name, open_pack, size
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    @contextmanager
    def use(self, ref: ObjectRef) -> Iterator[PackReader]:
        """Give out a pack's reader; the pack stays until the last user is done."""
        with self._lock:
            entry = self._entries.setdefault(ref.id, _Entry())
            self._entries.move_to_end(ref.id)
            entry.users += 1
        try:
            with entry.lock:  # whoever comes first fetches, the others wait for it
                if entry.reader is None:
                    entry.reader = self._fetch(ref)
            yield entry.reader
        finally:
            with self._lock:
                entry.users -= 1
                self._shrink()

    def close(self) -> None:
        """Forget all packs."""
        with self._lock:
            self._size = 0
            self._shrink()

    def _fetch(self, ref: ObjectRef) -> PackReader:
        name = self._name(ref.id)
        path = self._objects.fetch(name, ref.length, ref.sha256)
        try:
            with _naming(name):
                return self._open_pack(path, ref)
        finally:
            path.unlink()  # the open file keeps its bytes; a killed container leaves nothing behind

    def _shrink(self) -> None:
        idle = [pack_id for pack_id, entry in self._entries.items() if entry.users == 0]
        for pack_id in idle[: max(0, len(self._entries) - self._size)]:
            self._entries.pop(pack_id).close()


class _Entry:
    """One pack of the cache."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reader: PackReader | None = None
        self.users = 0

    def close(self) -> None:
        """Close the file and so free its disk space."""
        if self.reader is not None:
            self.reader.close()


def _side_by_side(chunks: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    """Gather chunks that follow each other in one frame of one pack."""
    gathered: list[ChunkRef] = []
    for chunk in chunks:
        if gathered and not chunk.follows(gathered[-1]):
            yield gathered
            gathered = []
        gathered.append(chunk)
    if gathered:
        yield gathered


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn Damaged into the Failure that names the object."""
    try:
        yield
    except Damaged as damage:
        raise _damaged(name, str(damage)) from None


def _small(objects: Objects) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        present = 0 < (objects.length(name) or 0) <= WRAPPED_MAX
        return fetch_bytes(objects, name) if present else None

    return read


def _damaged(name: str, what: str) -> DamagedObject:
    return DamagedObject(
        name,
        f"{name} is damaged: {what}; choose another backup or bring that object back from a copy",
    )
