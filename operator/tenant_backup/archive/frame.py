"""One frame: zstd, then AES-256-GCM, bound to its tenant, pack, number, kind and size.

The nonce is the frame's number: safe because every pack has a key of its own.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAX_PLAIN = 16 << 20  # bytes; what a reader is willing to decompress at once
TAG = 16  # bytes that AES-GCM adds
_AD = struct.Struct(">16sIBI")  # pack id, frame number, kind, plaintext length


class Kind(IntEnum):
    """What a frame holds. The numbers are in the format: never reuse one."""

    ROWS = 1  # of a table, as PostgreSQL's COPY text: one line per row
    BLOB = 2  # opaque to the archive: a schema dump
    FOOTER = 16  # not in the frame table: where the frames of a pack are
    CHUNKS = 17  # in index packs: the chunks of a segment or of a part of it
    CATALOGUE = 18  # in index packs: what the engine needs, and the segments


class Damaged(Exception):
    """These bytes are not what was written. Says where; the reader says which object."""


class FrameCipher:
    """Seals and opens the frames of one pack."""

    def __init__(self, key: bytes, slug: str, pack_id: str) -> None:
        self._aead = AESGCM(key)
        self._context = b"tenantbackup.dev/v1/frame\0" + slug.encode() + b"\0"
        self._pack_id = bytes.fromhex(pack_id)

    def seal(self, number: int, kind: Kind, plain_length: int, compressed: bytes) -> bytes:
        """Encrypt one compressed frame; `plain_length` is its size before compression, in bytes."""
        return self._aead.encrypt(_nonce(number), compressed, self._bound_to(number, kind, plain_length))

    def open(self, number: int, kind: Kind, plain_length: int, sealed: bytes | memoryview) -> bytes:
        """Decrypt one frame; the result is still compressed. Raises Damaged."""
        try:
            return self._aead.decrypt(_nonce(number), sealed, self._bound_to(number, kind, plain_length))
        except InvalidTag:
            what = "its footer" if kind is Kind.FOOTER else f"frame {number}"
            raise Damaged(f"{what} is not what was written") from None

    def _bound_to(self, number: int, kind: Kind, plain_length: int) -> bytes:
        return self._context + _AD.pack(self._pack_id, number, kind, plain_length)


def decompress(compressed: bytes, plain_length: int) -> bytes:
    """Decompress one frame, never to more than the declared `plain_length` bytes. Raises Damaged."""
    try:
        declared = zstandard.frame_content_size(compressed)
        if declared != plain_length or plain_length > MAX_PLAIN:
            raise Damaged(f"a frame declares {declared} bytes where {plain_length} were announced")
        if plain_length == 0:
            return b""
        plain = zstandard.ZstdDecompressor().decompress(
            compressed, max_output_size=plain_length, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise Damaged("a frame does not decompress") from None
    if len(plain) != plain_length:
        raise Damaged(f"a frame holds {len(plain)} bytes where {plain_length} were announced")
    return plain


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
