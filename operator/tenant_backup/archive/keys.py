"""Which keys there are, what each derives from, and how they are wrapped to recipients.

* The index key (32 bytes, one per tenant, kept by the cluster) opens lists and footers. The key of
  chunk ids derives from it.
* The data key (32 bytes, fresh per run) opens rows. The cluster forgets it: it is kept only wrapped
  to the recipients (age X25519), a copy in every pack.
* The signing key (Ed25519, one per tenant) proves who wrote a manifest. age proves nothing about the
  sender: whoever can write to a store can encrypt for a public recipient.

Keys never appear in a repr or an error.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenant_backup.contract.reasons import Failure, Reason

KEY_BYTES = 32
_CONTEXT = b"tenantbackup.dev/v1/"  # the info string of every derivation starts so
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+")


def derive(key: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """Return 32 bytes made from `key` for one `purpose`: HKDF-SHA256, info = context + purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt, _CONTEXT + purpose.encode()).derive(key)


@dataclass(frozen=True)
class IndexKey:
    """A tenant's index key and what derives from it; `secret` is never shown."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"an index key has {KEY_BYTES} bytes, not {len(self.secret)}")

    @property
    def key_id(self) -> str:
        """A public name of this key: 16 hex digits that tell nothing about it."""
        return derive(self.secret, "key id")[:8].hex()

    def chunk_id_key(self) -> bytes:
        """The key of keyed BLAKE3: without it nobody can guess what a chunk holds from its id."""
        return derive(self.secret, "chunk id")

    def frame_key(self, list_id: str) -> bytes:
        """The key of the frames of one index pack."""
        return derive(self.secret, "list", bytes.fromhex(list_id))

    def footer_key(self, pack_id: str) -> bytes:
        """The key of the footer of one pack, data or index."""
        return derive(self.secret, "footer", bytes.fromhex(pack_id))


@dataclass(frozen=True)
class DataKey:
    """One run's data key and its copy for the recipients."""

    secret: bytes = field(repr=False)
    wrapped: bytes = field(repr=False)

    @classmethod
    def fresh(cls, recipients: Sequence[str]) -> DataKey:
        """Make a data key for one run. Raises Failure(INVALID_SPEC) for what is no recipient."""
        secret = secrets.token_bytes(KEY_BYTES)
        return cls(secret, wrap(secret, recipients))

    def frame_key(self, pack_id: str) -> bytes:
        """The key of the frames of one data pack."""
        return derive(self.secret, "pack", bytes.fromhex(pack_id))


@dataclass(frozen=True)
class Identity:
    """The private half of one or more recipients: opens what was wrapped to them."""

    secrets: tuple[pyrage.x25519.Identity, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read an age key file, comments allowed. Raises Failure(WRONG_KEY) when it has no key."""
        try:
            found = tuple(pyrage.x25519.Identity.from_str(line) for line in _IDENTITY.findall(text))
        except pyrage.IdentityError:
            found = ()
        if not found:
            raise Failure(
                Reason.WRONG_KEY,
                "the identity is not an age key; put the line AGE-SECRET-KEY-1… that age-keygen made"
                ' into key "identity" of its Secret',
            )
        return cls(found)

    def unwrap(self, wrapped: bytes, what: str) -> bytes:
        """Return the key in `wrapped`. Raises Failure(WRONG_KEY) when it was wrapped to others."""
        try:
            key = bytes(pyrage.decrypt(wrapped, self.secrets))
        except pyrage.DecryptError:
            key = b""
        if len(key) != KEY_BYTES:
            raise Failure(
                Reason.WRONG_KEY,
                f"the identity does not open {what}; use the identity of one of the recipients that"
                " the Tenant had when this backup was made",
            )
        return key


@dataclass(frozen=True)
class WriterKeys:
    """All that a backup run needs."""

    index: IndexKey
    data: DataKey
    signing: Ed25519PrivateKey = field(repr=False)


def wrap(key: bytes, recipients: Sequence[str]) -> bytes:
    """Return `key` encrypted to each of `recipients` (age1…). Raises Failure(INVALID_SPEC)."""
    return bytes(pyrage.encrypt(key, [_recipient(text) for text in recipients]))


def recipient_set(recipients: Sequence[str]) -> str:
    """Return a name for this set of recipients: 16 hex digits, the same in any order."""
    text = "\n".join(sorted(set(recipients)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise Failure(
            Reason.INVALID_SPEC,
            f'"{text}" is not an age recipient; spec.encryption.recipients of the Tenant takes the'
            " public keys (age1…) that age-keygen prints",
        ) from None
