"""Which keys there are, what each derives from, and how they are wrapped to recipients.

* The index key (32 bytes, one per tenant, kept by the cluster) opens lists and footers. The key of
  chunk ids derives from it.
* The data key (32 bytes, fresh per run) opens rows. The cluster forgets it: it is kept only wrapped
  to the recipients (age X25519), a copy in every pack.
* The signing key (Ed25519, one per tenant) proves who wrote a manifest. age proves nothing about the
  sender: whoever can write to a store can encrypt for a public recipient.

A backup that is not encrypted has an index key of its own, derived from the tenant's, and keeps it and
the data keys readable in the store. The signing key is never readable there: it signs encrypted backups too.

Keys never appear in a repr or an error.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenant_backup.contract.reasons import Failure, Reason

from . import names

KEY_BYTES = 32
Mode = Literal["Age", "None"]  # who can read a backup: its recipients, or whoever can read the store
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

    def unencrypted(self) -> IndexKey:
        """The index key of the tenant's readable backups: it tells nothing of this one."""
        return IndexKey(derive(self.secret, "unencrypted"))

    def of(self, mode: Mode) -> IndexKey:
        """The index key of the tenant's backups of this mode."""
        return self if mode == "Age" else self.unencrypted()

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
class TenantKeys:
    """What the cluster keeps for a tenant; the identity's owner can make it again from `keys/`."""

    index: IndexKey
    signing_seed: bytes = field(repr=False)

    @classmethod
    def split(cls, joined: bytes) -> TenantKeys:
        """Read what `joined` made."""
        return cls(IndexKey(joined[:KEY_BYTES]), joined[KEY_BYTES:])

    def joined(self) -> bytes:
        """The plaintext of a `keys/` object: index key, then signing seed."""
        return self.index.secret + self.signing_seed

    def signing(self) -> Ed25519PrivateKey:
        """The key that signs manifests."""
        return Ed25519PrivateKey.from_private_bytes(self.signing_seed)


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

    @classmethod
    def readable(cls) -> DataKey:
        """Make a data key that stands as it is where the wrapped one would."""
        secret = secrets.token_bytes(KEY_BYTES)
        return cls(secret, secret)

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

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public halves (age1…)."""
        return tuple(str(secret.to_public()) for secret in self.secrets)

    def open(self, wrapped: bytes, length: int) -> bytes | None:
        """Return the `length` bytes in `wrapped`; None when it is for others, or holds no such key."""
        try:
            plain = bytes(pyrage.decrypt(wrapped, self.secrets))
        except pyrage.DecryptError:
            return None
        return plain if len(plain) == length else None


@dataclass(frozen=True)
class WriterKeys:
    """All that a backup run needs. Without recipients it is not encrypted."""

    tenant: TenantKeys
    data: DataKey
    recipients: tuple[str, ...]

    @classmethod
    def fresh(cls, tenant: TenantKeys, mode: Mode, recipients: Sequence[str]) -> WriterKeys:
        """Make the keys of one run. Raises Failure(INVALID_SPEC) for what is no recipient, or for none."""
        if mode == "None":
            return cls(tenant, DataKey.readable(), ())
        return cls(tenant, DataKey.fresh(recipients), tuple(recipients))

    @property
    def mode(self) -> Mode:
        """Whether this run is encrypted."""
        return "Age" if self.recipients else "None"

    @cached_property
    def index(self) -> IndexKey:
        """The index key of this run."""
        return self.tenant.index.of(self.mode)

    @property
    def recipient_set(self) -> str:
        """The name of these recipients; empty for none."""
        return recipient_set(self.recipients) if self.recipients else ""

    def stored_name(self) -> str:
        """The name of the `keys/` object that a reader without the cluster's keys needs."""
        if self.mode == "None":
            return names.readable_index_key(self.index.key_id)
        return names.wrapped_key(self.index.key_id, self.recipient_set)

    def stored(self) -> bytes:
        """What that object holds. The signing seed is never readable: it would sign encrypted backups too."""
        if self.mode == "None":
            return self.index.secret
        return wrap(self.tenant.joined(), self.recipients)


def wrap(key: bytes, recipients: Sequence[str]) -> bytes:
    """Return `key` encrypted to each of `recipients` (age1…). Raises Failure(INVALID_SPEC)."""
    if not recipients:
        raise Failure(
            Reason.INVALID_SPEC, "there is no recipient to encrypt for; name one, or set encryption mode None"
        )
    return bytes(pyrage.encrypt(key, [_recipient(text) for text in recipients]))


def recipient_set(recipients: Sequence[str]) -> str:
    """Return a name for this set of recipients: 16 hex digits, the same in any order."""
    text = "\n".join(sorted(set(recipients)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def wrapped_id(wrapped: bytes) -> str:
    """Return the name of a data key by its copy in the packs: 16 hex digits."""
    return hashlib.sha256(wrapped).digest()[:8].hex()


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise Failure(
            Reason.INVALID_SPEC,
            # Cut off: the private key in place of the public one is the usual mistake.
            f'"{text[:12]}…" is not an age recipient; recipients are the public keys (age1…) that age-keygen'
            " prints",
        ) from None
