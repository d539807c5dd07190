"""A reader written from docs/FORMAT.md alone: imports nothing of ours, so it proves the document.

No comfort and no friendly errors: anything unexpected is an exception.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def hkdf(key: bytes, purpose: str, salt: bytes = b"") -> bytes:
    return HKDF(SHA256(), 32, salt, b"tenantbackup.dev/v1/" + purpose.encode()).derive(key)


def unseal(key: bytes, slug: str, pack: bytes, number: int, kind: int, length: int, sealed: bytes) -> bytes:
    bound = b"tenantbackup.dev/v1/frame\0" + slug.encode() + b"\0" + pack
    bound += struct.pack(">IBI", number, kind, length)
    return AESGCM(key).decrypt(number.to_bytes(12, "big"), sealed, bound)


@dataclass
class Tenant:
    """A tenant's folder and what its owner has."""

    folder: Path
    identity: pyrage.x25519.Identity
    trusted_key: str

    def manifest(self, backup_id: str) -> dict[str, Any]:
        """Return a manifest whose signature is right."""
        data = (self.folder / "manifests" / backup_id).read_bytes()
        document = json.loads(data)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.trusted_key))
        key.verify(bytes.fromhex(document["signature"]), b"tenantbackup.dev/v1/manifest\0" + data[:-145])
        assert document["backupId"] == backup_id
        return dict(document)

    def restore(self, backup_id: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the engine's catalogue and every segment's bytes."""
        manifest = self.manifest(backup_id)
        slug, encryption = manifest["tenant"]["slug"], manifest["encryption"]
        index_key = self.index_key(encryption)
        assert hkdf(index_key, "key id")[:8].hex() == encryption["keyId"]
        frames: dict[tuple[str, int], bytes] = {}
        for ref in manifest["packs"]:
            self.read_pack(f"packs/{ref['id'][:2]}/{ref['id']}", ref, slug, index_key, frames)
        for ref in manifest["lists"]:
            self.read_pack(f"lists/{ref['id']}", ref, slug, index_key, frames)
        place = manifest["catalogue"]
        numbers = range(place["first"], place["first"] + place["frames"])
        catalogue = json.loads(b"".join(frames[place["list"], number] for number in numbers))
        segments = {}
        for name, segment in catalogue["segments"].items():
            parts = [
                chunks(frames[catalogue["lists"][at], frame], part, index_key, frames)
                for at, frame, part in segment["parts"]
            ]
            segments[name] = b"".join(parts)
            assert len(segments[name]) == segment["bytes"]
        return catalogue["catalogue"], segments

    def index_key(self, encryption: dict[str, Any]) -> bytes:
        """Return the index key, as it is stored or by the identity."""
        if encryption["mode"] == "None":
            return (self.folder / "keys" / f"{encryption['keyId']}.none").read_bytes()
        wrapped = self.folder / "keys" / f"{encryption['keyId']}.{encryption['recipientSet']}.age"
        keys = pyrage.decrypt(wrapped.read_bytes(), [self.identity])
        assert len(keys) == 64
        return keys[:32]

    def read_pack(
        self,
        name: str,
        ref: dict[str, Any],
        slug: str,
        index_key: bytes,
        frames: dict[tuple[str, int], bytes],
    ) -> None:
        """Add every frame of one pack to `frames`."""
        data = (self.folder / name).read_bytes()
        pack = bytes.fromhex(ref["id"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (ref["length"], ref["sha256"])
        kind = b"I" if name.startswith("lists/") else b"D"
        assert data[:32] == b"TBKPACK1" + kind + bytes(7) + pack
        wrapped_length, footer_length, end = struct.unpack(">II8s", data[-16:])
        assert end == b"TBKPEND1"
        sealed_footer = data[-16 - footer_length : -16]
        footer_key = hkdf(index_key, "footer", pack)
        footer = unseal(footer_key, slug, pack, 0, 16, footer_length - 16, sealed_footer)
        wrapped = data[-16 - footer_length - wrapped_length : -16 - footer_length]
        assert footer[:32] == hashlib.sha256(wrapped).digest()
        if kind == b"D":
            readable = len(wrapped) == 32  # age ciphertext is longer
            key = hkdf(wrapped if readable else pyrage.decrypt(wrapped, [self.identity]), "pack", pack)
        else:
            key = hkdf(index_key, "list", pack)
        (count,) = struct.unpack(">I", footer[32:36])
        at = 32
        for number in range(count):
            head = footer[36 + 13 * number : 36 + 13 * (number + 1)]
            frame_kind, sealed_length, length, _chunks = struct.unpack(">BIII", head)
            compressed = unseal(key, slug, pack, number, frame_kind, length, data[at : at + sealed_length])
            frames[ref["id"], number] = zstandard.decompress(compressed, max_output_size=length)
            at += sealed_length
        assert at == len(data) - 16 - footer_length - wrapped_length


def chunks(data: bytes, part: str, index_key: bytes, frames: dict[tuple[str, int], bytes]) -> bytes:
    """Return the bytes a chunk list names."""
    (packs,) = struct.unpack(">I", data[:4])
    ids = [data[4 + 16 * n : 20 + 16 * n].hex() for n in range(packs)]
    entries = list(struct.iter_unpack(">32sIIII", data[8 + 16 * packs :]))
    assert struct.unpack(">I", data[4 + 16 * packs : 8 + 16 * packs]) == (len(entries),)
    assert blake3(b"".join(e[0] for e in entries), key=hkdf(index_key, "part id")).hexdigest() == part
    plain = b""
    for chunk_id, pack, frame, offset, length in entries:
        chunk = frames[ids[pack], frame][offset : offset + length]
        assert blake3(chunk, key=hkdf(index_key, "chunk id")).digest() == chunk_id
        plain += chunk
    return plain
