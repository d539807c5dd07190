"""What an earlier backup stored already: chunks and parts by their ids, segments by their fingerprints.

The base's index packs are read once into a sorted file of fixed entries, which is mapped and bisected:
16 million chunks are 750 MB of disk, and of memory a few MiB and what the kernel likes to cache.
Packs of which the base needs little any more are not built upon, so that they die with their backups.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import names
from .frame import Damaged
from .keys import IndexKey
from .lists import ChunkRef, Part, Segment, decode_catalogue, decode_chunks, part_id
from .manifest import Manifest
from .pack import Binding, ObjectRef, PackKind, PackReader

LIVE_SHARE = 0.3  # of a pack's plaintext that its base must still need
SMALL = 1 << 20  # bytes of a pack
CROWD = 64  # small packs, or small index packs, that a base may have: each run leaves one
_ENTRY = struct.Struct(">32sIIII")  # chunk id, index into the base's packs, frame, offset, bytes
_ID = 32  # bytes
_HELD = 16 << 20  # bytes of entries kept in memory before they go to their buckets' files


@dataclass(frozen=True, slots=True)
class KnownPart:
    """A chunk list that is stored, and the packs its chunks are in."""

    part: Part
    packs: frozenset[str]


class Known:
    """The chunks and parts of a base backup that a new one may refer to. For any number of threads."""

    def __init__(  # noqa: PLR0913, PLR0917 - all that is known
        self,
        packs: Sequence[ObjectRef],
        lists: Sequence[ObjectRef],
        entries: mmap.mmap | bytes,
        usable: Sequence[bool],
        parts: dict[str, KnownPart],
        segments: dict[str, Segment],
    ) -> None:
        """Take `entries` sorted by chunk id; `usable` says which of `packs` may be referred to.

        `segments` are those with a fingerprint, by it.
        """
        self.packs, self.lists = packs, lists
        self._entries, self._usable, self._parts, self._segments = entries, usable, parts, segments
        self._numbers = range(len(entries) // _ENTRY.size)

    @classmethod
    def nothing(cls) -> Self:
        """What is known without a base."""
        return cls((), (), b"", (), {}, {})

    def chunk(self, chunk_id: bytes) -> ChunkRef | None:
        """Return where a chunk is stored; None when it is not, or only where it will not stay."""
        at = bisect_left(self._numbers, chunk_id, key=self._id)
        for number in self._numbers[at:]:
            found, pack, frame, offset, length = _ENTRY.unpack_from(self._entries, number * _ENTRY.size)
            if found != chunk_id:
                return None
            if self._usable[pack]:
                return ChunkRef(found, self.packs[pack].id, frame, offset, length)
        return None

    def part(self, content: str) -> KnownPart | None:
        """Return where the chunk list with this part id is stored, if it and all its chunks will stay."""
        return self._parts.get(content)

    def segment(self, fingerprint: str) -> Segment | None:
        """Return the segment of a source that looked like this, if all of it will stay."""
        found = self._segments.get(fingerprint)
        return found if found and all(part.id in self._parts for part in found.parts) else None

    def _id(self, number: int) -> bytes:
        start = number * _ENTRY.size
        return self._entries[start : start + _ID]


def open_known(base: Manifest, index: IndexKey, folder: Path, unusable: Collection[str]) -> Known:
    """Read the index packs of `base`: files in `folder`, named by their ids, each removed when it is read.

    `unusable` has the names of objects that must not be referred to. Raises Damaged when the files are not
    what the base's own keys wrote, OSError when the disk is full.
    """
    entries = _Sorter(folder)
    parts = _Parts(base, index, folder, entries)
    parts.read()
    mapped, live = entries.finish(len(base.packs))
    refused = {*unusable, *map(names.pack, _crowd(base.packs)), *map(names.index_pack, _crowd(base.lists))}
    usable = [
        names.pack(ref.id) not in refused and live[at] >= LIVE_SHARE * ref.plain
        for at, ref in enumerate(base.packs)
    ]
    return Known(base.packs, base.lists, mapped, usable, parts.usable(usable, refused), parts.fingerprinted)


def _crowd(refs: Sequence[ObjectRef]) -> list[str]:
    """Return the small ones when they have become many: stored again together they cost fewer requests."""
    small = [ref.id for ref in refs if ref.length < SMALL]
    return small if len(small) > CROWD else []


class _Parts:
    """The parts of a base, read one index pack after the other."""

    def __init__(self, base: Manifest, index: IndexKey, folder: Path, entries: _Sorter) -> None:
        self._base, self._index, self._folder, self._entries = base, index, folder, entries
        self._place = {ref.id: at for at, ref in enumerate(base.packs)}
        self._live: dict[str, bool] = {}  # by index pack: whether the base needs enough of it
        self._found: list[KnownPart] = []
        self.fingerprinted: dict[str, Segment] = {}  # segments by their fingerprints

    def read(self) -> None:
        """Read every chunk list that the base's catalogue names. Raises Damaged."""
        by_list: dict[str, set[Part]] = defaultdict(set)
        for part in self._catalogued():
            by_list[part.list].add(part)
        for ref in self._base.lists:
            self._read_list(ref, by_list.pop(ref.id, set()))
        if by_list:
            raise Damaged("its catalogue names index packs that its manifest does not")

    def usable(self, packs: Sequence[bool], unusable: Collection[str]) -> dict[str, KnownPart]:
        """Return the parts that will stay, by part id; `packs` says which packs will."""
        return {
            known.part.id: known
            for known in self._found
            if self._live[known.part.list]
            and names.index_pack(known.part.list) not in unusable
            and all(packs[self._place[pack]] for pack in known.packs)
        }

    def _catalogued(self) -> Iterable[Part]:
        place = self._base.catalogue
        with closing(self._open(place.list)) as pack:
            numbers = range(place.first, place.first + place.frames)
            catalogue = decode_catalogue(b"".join(pack.frame(number) for number in numbers))
        segments = catalogue.segments.values()
        self.fingerprinted = {segment.fingerprint: segment for segment in segments if segment.fingerprint}
        return (part for segment in segments for part in segment.parts)

    def _read_list(self, ref: ObjectRef, parts: Collection[Part]) -> None:
        with closing(self._open(ref.id)) as pack:
            for part in parts:
                self._read_part(part, decode_chunks(pack.frame(part.frame)))
            live = sum(pack.frames[frame].plain for frame in {part.frame for part in parts})
        self._live[ref.id] = live >= LIVE_SHARE * ref.plain
        (self._folder / ref.id).unlink()

    def _read_part(self, part: Part, chunks: Sequence[ChunkRef]) -> None:
        if part_id(chunks, self._index) != part.id:
            raise Damaged(f"frame {part.frame} of {names.index_pack(part.list)} holds another chunk list")
        packs = frozenset(chunk.pack for chunk in chunks)
        if not packs <= self._place.keys():
            raise Damaged("a chunk list names packs that its manifest does not")
        for id_, pack, frame, offset, length in chunks:
            self._entries.add(_ENTRY.pack(id_, self._place[pack], frame, offset, length))
        self._found.append(KnownPart(part, packs))

    def _open(self, list_id: str) -> PackReader:
        binding = Binding(PackKind.INDEX, list_id, self._base.tenant.slug, self._index)
        try:
            return PackReader(self._folder / list_id, binding, lambda _: self._index.frame_key(list_id))
        except FileNotFoundError:
            raise Damaged(f"{names.index_pack(list_id)} is missing") from None


class _Sorter:
    """Sorts more entries than memory holds: into buckets by their first byte, then each bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buckets = [bytearray() for _ in range(256)]
        self._held = 0

    def add(self, entry: bytes) -> None:
        """Take one entry. Raises OSError when the disk is full."""
        self._buckets[entry[0]] += entry
        self._held += len(entry)
        if self._held >= _HELD:
            self._spill()

    def finish(self, packs: int) -> tuple[mmap.mmap | bytes, list[int]]:
        """Return all entries sorted, each once, and of each pack the bytes of its chunks among them."""
        live = [0] * packs
        path = self._folder / "chunks"
        with path.open("w+b") as file:
            for number in range(len(self._buckets)):
                entries = self._take(number)
                for entry in entries:
                    _, pack, _, _, length = _ENTRY.unpack(entry)
                    live[pack] += length
                file.write(b"".join(entries))
            file.flush()
            path.unlink()  # the mapping keeps it; a killed container leaves nothing behind
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
        return mapped, live

    def _take(self, number: int) -> list[bytes]:
        data, path = bytes(self._buckets[number]), self._bucket(number)
        self._buckets[number] = bytearray()
        if path.exists():
            data += path.read_bytes()
            path.unlink()
        size = _ENTRY.size
        return sorted({data[at : at + size] for at in range(0, len(data), size)})

    def _spill(self) -> None:
        for number, held in enumerate(self._buckets):
            with self._bucket(number).open("ab") as file:
                file.write(held)
            self._buckets[number] = bytearray()
        self._held = 0

    def _bucket(self, number: int) -> Path:
        return self._folder / f"bucket-{number:02x}"
