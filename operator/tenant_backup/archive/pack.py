"""A pack: frames back to back, the wrapped key, a footer that says where they are, a trailer.

Both data packs (frames under the run's data key) and index packs (under the index key) look so. Every
byte is accounted for: header and trailer are fixed or checked by sums, frames and footer are
authenticated, the footer holds the wrapped key's SHA-256. So a flipped byte is found by whoever reads
it, also without the manifest.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, islice
from pathlib import Path

from .frame import TAG, Damaged, FrameCipher, Kind, decompress
from .keys import IndexKey

_HEADER = struct.Struct(">8sc7x16s")  # magic, kind of pack, pack id
_TRAILER = struct.Struct(">II8s")  # bytes of wrapped key, bytes of sealed footer, magic
_MAGIC, _END = b"TBKPACK1", b"TBKPEND1"
_COUNT = struct.Struct(">I")
_FRAME = struct.Struct(">BIII")  # kind, sealed bytes, plain bytes, chunks
_CHUNK = struct.Struct(">32sI")  # chunk id, plain bytes
_DIGEST = 32  # bytes of SHA-256


class PackKind(Enum):
    """Whose key opens the frames."""

    DATA = b"D"  # the run's data key
    INDEX = b"I"  # the tenant's index key


@dataclass(frozen=True)
class Binding:
    """What every byte of a pack is bound to: moved to another tenant or name, it does not open."""

    kind: PackKind
    pack_id: str
    slug: str
    index: IndexKey

    def header(self) -> bytes:
        """The first bytes of the pack."""
        return _HEADER.pack(_MAGIC, self.kind.value, bytes.fromhex(self.pack_id))

    def cipher(self, key: bytes) -> FrameCipher:
        """The cipher of the frames under `key`."""
        return FrameCipher(key, self.slug, self.pack_id)

    def footer_cipher(self) -> FrameCipher:
        """The cipher of the footer."""
        return self.cipher(self.index.footer_key(self.pack_id))


@dataclass(frozen=True)
class ObjectRef:
    """How a manifest names a pack: enough to notice that it is another one."""

    id: str
    length: int  # bytes
    sha256: str  # hex
    plain: int  # bytes of all its frames before compression


@dataclass(frozen=True)
class FrameEntry:
    """One frame as the footer describes it."""

    kind: Kind
    sealed: int  # bytes in the pack
    plain: int  # bytes before compression
    chunks: tuple[tuple[bytes, int], ...]  # (id, bytes) of each chunk


class PackWriter:
    """Writes one pack to a file and hashes it on the way. Not for several threads at once."""

    def __init__(self, path: Path, binding: Binding, key: bytes, wrapped: bytes) -> None:
        """Create `path`; frames are sealed with `key`, which `wrapped` gives to the recipients."""
        self.path = path
        self.binding = binding
        self.length = 0  # bytes written so far
        self._wrapped = wrapped
        self._cipher = binding.cipher(key)
        self._frames: list[FrameEntry] = []
        self._hash = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        self._write(binding.header())

    def append(
        self, kind: Kind, plain: int, compressed: bytes, chunks: Sequence[tuple[bytes, int]] = ()
    ) -> int:
        """Add one frame of `plain` bytes before compression; return its number. Raises OSError."""
        number = len(self._frames)
        sealed = self._cipher.seal(number, kind, plain, compressed)
        self._write(sealed)
        self._frames.append(FrameEntry(kind, len(sealed), plain, tuple(chunks)))
        return number

    def finish(self) -> ObjectRef:
        """Write wrapped key, footer and trailer, and close the file. Raises OSError."""
        footer = _encode_footer(self._wrapped, self._frames)
        sealed = self.binding.footer_cipher().seal(0, Kind.FOOTER, len(footer), footer)
        self._write(self._wrapped + sealed + _TRAILER.pack(len(self._wrapped), len(sealed), _END))
        self._file.close()
        plain = sum(frame.plain for frame in self._frames)
        return ObjectRef(self.binding.pack_id, self.length, self._hash.hexdigest(), plain)

    def _write(self, part: bytes) -> None:
        view = memoryview(part)
        while view:  # a write to a nearly full disk may be short
            view = view[self._file.write(view) :]
        self._hash.update(part)
        self.length += len(part)


class PackReader:
    """Reads frames of one pack file, in any order and from several threads."""

    def __init__(self, path: Path, binding: Binding, frame_key: Callable[[bytes], bytes]) -> None:
        """Open `path` and read its footer; `frame_key` turns the wrapped key into the frames' key.

        Raises Damaged when this is not the pack of `binding` as it was written.
        """
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            wrapped, self.frames = self._read_ends(binding)
            self._cipher = binding.cipher(frame_key(wrapped))
        except BaseException:
            self.close()
            raise
        self._starts = list(accumulate((frame.sealed for frame in self.frames), initial=_HEADER.size))

    def frame(self, number: int) -> bytes:
        """Return the plaintext of one frame. Raises Damaged."""
        if not 0 <= number < len(self.frames):
            raise Damaged(f"there is no frame {number}")
        entry = self.frames[number]
        sealed = self._read(self._starts[number], entry.sealed)
        return decompress(self._cipher.open(number, entry.kind, entry.plain, sealed), entry.plain)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_ends(self, binding: Binding) -> tuple[bytes, list[FrameEntry]]:
        if self._read(0, _HEADER.size) != binding.header():
            raise Damaged("it does not begin as this pack")
        return read_ends(self._read, os.fstat(self._descriptor).st_size, binding)

    def _read(self, start: int, length: int) -> bytes:
        part = os.pread(self._descriptor, length, start)
        if len(part) != length:
            raise Damaged("it is cut short")
        return part


def read_ends(
    read: Callable[[int, int], bytes], size: int, binding: Binding
) -> tuple[bytes, list[FrameEntry]]:
    """Return the wrapped key and the frames of a pack of `size` bytes; `read` takes start and length.

    Reads the end only, nearly in order from the back. Raises Damaged.
    """
    if size < _HEADER.size + _TRAILER.size:
        raise Damaged(f"{size} bytes are too few")
    trailer = size - _TRAILER.size
    wrapped_length, footer_length, end = _TRAILER.unpack(read(trailer, _TRAILER.size))
    footer_at = trailer - footer_length
    wrapped_at = footer_at - wrapped_length
    if end != _END or wrapped_at < _HEADER.size or footer_length < TAG:
        raise Damaged("it does not end as a pack")
    footer = binding.footer_cipher().open(0, Kind.FOOTER, footer_length - TAG, read(footer_at, footer_length))
    wrapped = read(wrapped_at, wrapped_length)
    frames = _decode_footer(footer, wrapped)
    if _HEADER.size + sum(frame.sealed for frame in frames) != wrapped_at:
        raise Damaged("its frames do not add up")
    return wrapped, frames


def _encode_footer(wrapped: bytes, frames: Sequence[FrameEntry]) -> bytes:
    parts = [hashlib.sha256(wrapped).digest(), _COUNT.pack(len(frames))]
    parts += [_FRAME.pack(f.kind, f.sealed, f.plain, len(f.chunks)) for f in frames]
    parts += [_CHUNK.pack(*chunk) for f in frames for chunk in f.chunks]
    return b"".join(parts)


def _decode_footer(footer: bytes, wrapped: bytes) -> list[FrameEntry]:
    # The footer is authenticated by now: anything odd was written so by somebody with the key.
    try:
        if footer[:_DIGEST] != hashlib.sha256(wrapped).digest():
            raise Damaged("its wrapped key is not what was written")
        (count,) = _COUNT.unpack_from(footer, _DIGEST)
        heads_end = _DIGEST + _COUNT.size + count * _FRAME.size
        heads = list(_FRAME.iter_unpack(footer[_DIGEST + _COUNT.size : heads_end]))
        chunks = _CHUNK.iter_unpack(footer[heads_end:])
        return [
            FrameEntry(Kind(kind), sealed, plain, tuple(islice(chunks, held)))
            for kind, sealed, plain, held in heads
        ]
    except (struct.error, ValueError):
        raise Damaged("its footer is not a list of frames") from None
