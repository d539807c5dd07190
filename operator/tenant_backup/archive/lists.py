"""What index packs hold: chunk lists, and the catalogue with every segment.

A chunk list entry names pack, frame and place, so a later run may point into older packs without any
change of the format. A segment is a sequence of parts (chunk lists); an unchanged part is a reference
of a few dozen bytes. Table names are in here and not in the manifest: they are the tenant's business.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from blake3 import blake3

from .frame import Damaged
from .keys import IndexKey, derive
from .names import ID_BYTES

PART_CHUNKS = 8192  # chunks in one chunk list at most: 512 MiB of rows, 400 KiB of list
_COUNT = struct.Struct(">I")
_CHUNK = struct.Struct(">32sIIII")  # id, index into the packs above, frame, offset, bytes


class ChunkRef(NamedTuple):
    """Where a chunk is, and what it has to be."""

    id: bytes  # keyed BLAKE3 of the plaintext, 32 bytes
    pack: str
    frame: int
    offset: int  # in the frame's plaintext
    length: int  # bytes

    def follows(self, before: ChunkRef) -> bool:
        """Whether this chunk begins where the one `before` ends, in the same frame."""
        end = (before.pack, before.frame, before.offset + before.length)
        return (self.pack, self.frame, self.offset) == end


@dataclass(frozen=True, slots=True)
class Part:
    """Where a chunk list is: index pack, frame, and the keyed hash of its chunks' ids (hex)."""

    list: str
    frame: int
    id: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one table, or another stream of the engine."""

    kind: str  # rows | blob
    table: str | None  # schema.table
    rows: int | None
    bytes: int
    parts: tuple[Part, ...]
    fingerprint: str = ""  # of its source when it was read: where it is the same, so are the bytes


def source(segment_id: str, segment: Segment) -> str:
    """Return what a message calls the source of a segment: its table, or its id without a number."""
    return segment.table or segment_id.rpartition("/")[0] or segment_id


@dataclass(frozen=True)
class Catalogue:
    """The engine's own description, opaque here, and where every segment's bytes are."""

    engine: dict[str, Any]
    segments: Mapping[str, Segment]


def chunk_id(data: bytes | memoryview, key: bytes) -> bytes:
    """Return the id of a chunk: keyed BLAKE3, 32 bytes."""
    return blake3(data, key=key).digest()


def part_id(chunks: Iterable[ChunkRef], index: IndexKey) -> str:
    """Return the name of a sequence of chunks by content (hex), wherever they are stored."""
    return blake3(b"".join(chunk.id for chunk in chunks), key=derive(index.secret, "part id")).hexdigest()


def encode_chunks(chunks: Sequence[ChunkRef]) -> bytes:
    """Return a chunk list: the packs it needs, then one entry of 48 bytes per chunk."""
    places = {pack: at for at, pack in enumerate(dict.fromkeys(chunk.pack for chunk in chunks))}
    parts = [_COUNT.pack(len(places)), *map(bytes.fromhex, places), _COUNT.pack(len(chunks))]
    parts += [_CHUNK.pack(c.id, places[c.pack], c.frame, c.offset, c.length) for c in chunks]
    return b"".join(parts)


def decode_chunks(data: bytes) -> list[ChunkRef]:
    """Read what `encode_chunks` wrote. Raises Damaged."""
    try:
        (pack_count,) = _COUNT.unpack_from(data, 0)
        at = _COUNT.size + pack_count * ID_BYTES
        packs = [data[i : i + ID_BYTES].hex() for i in range(_COUNT.size, at, ID_BYTES)]
        (count,) = _COUNT.unpack_from(data, at)
        entries = list(_CHUNK.iter_unpack(data[at + _COUNT.size :]))
        if len(entries) != count:
            raise Damaged("a chunk list has another length than it says")
        return [ChunkRef(id_, packs[place], *rest) for id_, place, *rest in entries]
    except (struct.error, IndexError):
        raise Damaged("a chunk list cannot be read") from None


def encode_catalogue(catalogue: Catalogue) -> bytes:
    """Return the catalogue as UTF-8 JSON; index packs are named once, parts by their position."""
    lists = dict.fromkeys(part.list for segment in catalogue.segments.values() for part in segment.parts)
    place = {name: at for at, name in enumerate(lists)}
    segments = {
        name: {
            "kind": segment.kind,
            "table": segment.table,
            "rows": segment.rows,
            "bytes": segment.bytes,
            "parts": [[place[part.list], part.frame, part.id] for part in segment.parts],
        }
        | ({"fingerprint": segment.fingerprint} if segment.fingerprint else {})
        for name, segment in catalogue.segments.items()
    }
    document = {"catalogue": catalogue.engine, "lists": list(lists), "segments": segments}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def decode_catalogue(data: bytes) -> Catalogue:
    """Read what `encode_catalogue` wrote. Raises Damaged."""
    try:
        document = json.loads(data)
        lists = document["lists"]
        segments = {name: _segment(value, lists) for name, value in document["segments"].items()}
        return Catalogue(document["catalogue"], segments)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise Damaged("the catalogue cannot be read") from None


def _segment(value: dict[str, Any], lists: Sequence[str]) -> Segment:
    parts = tuple(Part(lists[at], frame, id_) for at, frame, id_ in value["parts"])
    fingerprint = value.get("fingerprint", "")
    return Segment(value["kind"], value["table"], value["rows"], value["bytes"], parts, fingerprint)
