"""The manifest: what a backup is, readable without a key, signed by the tenant's key.

Its existence in the store is the commit. The object is one line of JSON whose last member is the
signature, so whoever checks it needs no rules about JSON: the signature covers the bytes before that
member, and they are checked before they are parsed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tenant_backup.contract.job import Contents
from tenant_backup.contract.reasons import Failure, Reason

from .keys import Mode, WriterKeys
from .names import is_backup_id, is_id
from .pack import ObjectRef

FORMAT = "tenantbackup.dev/archive"
FORMAT_VERSION = 1
MAX_LENGTH = 64 << 20  # bytes; a manifest of 100,000 packs has about 15 MiB
UNREADABLE = (Reason.CHECKSUM_MISMATCH, Reason.UNSUPPORTED_CONTENT)  # damaged, or of a newer format
_CONTEXT = b"tenantbackup.dev/v1/manifest\0"  # signed before the document's own bytes
_TAIL = re.compile(rb',"signature":"([0-9a-f]{128})"}\n')
_TAIL_LENGTH = len(',"signature":""}\n') + 128
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TenantIdentity:
    """Whose backup this is, as it was when it was made."""

    cluster_id: str
    namespace: str
    name: str
    slug: str


@dataclass(frozen=True)
class BackupIdentity:
    """The TenantBackup object that asked for it: the same UID means the same backup."""

    name: str
    uid: str


@dataclass(frozen=True)
class Encryption:
    """Who can open it. `recipients` are public keys."""

    mode: Mode
    key_id: str  # of the tenant's index key for this mode
    recipient_set: str  # empty with mode None, as recipients are
    recipients: tuple[str, ...]

    @classmethod
    def of(cls, keys: WriterKeys) -> Encryption:
        """Describe what a run writes with these keys."""
        return cls(keys.mode, keys.index.key_id, keys.recipient_set, keys.recipients)


@dataclass(frozen=True)
class Server:
    """Where the rows came from; empty in a backup of files alone."""

    engine: str
    version: str


@dataclass(frozen=True)
class Times:
    """RFC 3339, UTC. `snapshot` is the moment the rows are from."""

    started: str
    snapshot: str
    completed: str


@dataclass(frozen=True)
class Modules:
    """Names only. `only` lists the chosen ones of a partial backup and is empty for a whole one."""

    defined: tuple[str, ...]
    only: tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """Of the tenant's volumes: how much there is, and when it was read."""

    count: int  # without directories
    bytes: int  # with holes
    changed: int  # each time they were read: what is stored of them may be of two moments
    skipped: int  # no files: sockets, devices, other file systems
    read_from: str  # RFC 3339, UTC
    read_to: str


NO_FILES = Files(0, 0, 0, 0, "", "")


@dataclass(frozen=True)
class Sizes:
    """Bytes: read from the source; of all packs and lists this needs; of those this run wrote."""

    logical: int
    stored: int
    added: int


@dataclass(frozen=True)
class CataloguePlace:
    """The catalogue is `frames` frames of index pack `list`, from number `first` on, joined."""

    list: str
    first: int
    frames: int


@dataclass(frozen=True)
class Manifest:
    """One backup. Everything else in the store is reached from here, each with its checksum."""

    format: str
    format_version: int
    writer: str  # version of this program
    backup_id: str
    backup: BackupIdentity
    tenant: TenantIdentity
    times: Times
    server: Server
    encryption: Encryption
    consistency: str  # Snapshot | PerTable, of the rows; PerFile when there are none
    partial: bool  # only some modules' rows
    modules: Modules
    tables: int
    rows: int
    bytes: Sizes
    packs: tuple[ObjectRef, ...]
    lists: tuple[ObjectRef, ...]
    catalogue: CataloguePlace
    # What has a default is not written when it is that: old manifests say nothing of it.
    contents: Contents = "All"  # of what the tenant had
    files: Files = NO_FILES


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> bytes:
    """Return the manifest object: one line of JSON, keys sorted, signature last."""
    body = json.dumps(_plain(manifest), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signed = body[:-1]  # the closing brace comes after the signature
    signature = key.sign(_CONTEXT + signed).hex().encode()
    return signed + b',"signature":"' + signature + b'"}\n'


def verify(data: bytes, *trusted_keys: str) -> Manifest:
    """Check that one of these Ed25519 public keys (hex) signed it, then read the manifest.

    Raises Failure: SIGNATURE_INVALID, or UNSUPPORTED_CONTENT for a newer format.
    """
    if not any(_is_signed_by(data, key) for key in trusted_keys):
        refuse_newer_format(data)
        raise Failure(
            Reason.SIGNATURE_INVALID,
            "the manifest was not signed by this tenant's key: it was damaged, forged or belongs to another"
            " tenant; compare the Tenant's status.signingKey with the recovery sheet or take another backup",
        )
    return parse(data)


def _is_signed_by(data: bytes, trusted_key: str) -> bool:
    tail = _TAIL.fullmatch(data[-_TAIL_LENGTH:])
    if tail is None:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(trusted_key))
        key.verify(bytes.fromhex(tail[1].decode()), _CONTEXT + data[:-_TAIL_LENGTH])
    except (InvalidSignature, ValueError):
        return False
    return True


def parse(data: bytes) -> Manifest:
    """Read a manifest without checking its signature: for listing, never for restoring.

    Raises Failure: UNSUPPORTED_CONTENT for a newer format, CHECKSUM_MISMATCH for what is no manifest.
    """
    refuse_newer_format(data)
    try:
        manifest: Manifest = _build(Manifest, json.loads(data), "manifest")
        _check(manifest)
    except (ValueError, RecursionError) as error:
        raise Failure(
            Reason.CHECKSUM_MISMATCH, f"the manifest cannot be read ({error}); choose another backup"
        ) from None
    return manifest


def refuse_newer_format(data: bytes) -> None:
    """Raise Failure(UNSUPPORTED_CONTENT) when `data` says that a newer program wrote it."""
    try:
        version = json.loads(data)["formatVersion"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise Failure(
            Reason.UNSUPPORTED_CONTENT,
            f"the backup has format version {version} and this program reads up to {FORMAT_VERSION};"
            " restore it with the newer version of the operator that made it",
        )


def facts(manifest: Manifest, sha256: str) -> dict[str, Any]:
    """Return what `upload` answers for this backup, but for its location, which the store knows."""
    return {
        "backupId": manifest.backup_id,
        "checksum": f"sha256:{sha256}",
        "encryption": manifest.encryption.mode,
        "bytes": _plain(manifest.bytes),
        "tables": manifest.tables,
        "rows": manifest.rows,
        "consistency": manifest.consistency,
        "startedAt": manifest.times.started,
        "dataAt": data_at(manifest),
    } | ({"files": _counted(manifest.files)} if manifest.files.read_from else {})


def data_at(manifest: Manifest) -> dict[str, str]:
    """Return of when the data is: the database, and from when to when files were read."""
    files = manifest.files
    database = {"database": manifest.times.snapshot} if manifest.server.engine else {}
    return database | ({"filesFrom": files.read_from, "filesTo": files.read_to} if files.read_from else {})


def _counted(files: Files) -> dict[str, int]:
    return {"count": files.count, "changed": files.changed, "skipped": files.skipped}


def document(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as a JSON object without its signature."""
    return dict(_plain(manifest))


def _check(manifest: Manifest) -> None:
    """Refuse what would make a bad object name. Raises ValueError."""
    refs = [*manifest.packs, *manifest.lists]
    if manifest.format != FORMAT or not is_backup_id(manifest.backup_id):
        raise ValueError("manifest.format or manifest.backupId is not ours")
    for ref in refs:
        if not is_id(ref.id) or not _SHA256.fullmatch(ref.sha256) or min(ref.length, ref.plain) < 0:
            raise ValueError(f"manifest names an object {ref.id!r}, which cannot be one")
    if len({ref.id for ref in refs}) != len(refs):
        raise ValueError("manifest names an object twice")
    if manifest.catalogue.list not in {ref.id for ref in manifest.lists}:
        raise ValueError("manifest.catalogue.list is not one of manifest.lists")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        members = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        defaults = {f.name: f.default for f in dataclasses.fields(value)}
        return {_camel(name): _plain(one) for name, one in members.items() if one != defaults[name]}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _build(kind: Any, value: Any, where: str) -> Any:
    """Make a `kind` of a JSON value; unknown members are left out. Raises ValueError naming the place."""
    if dataclasses.is_dataclass(kind):
        return _build_fields(kind, value, where)
    if typing.get_origin(kind) is tuple:
        item_kind = typing.get_args(kind)[0]
        items: Sequence[Any] = _typed(list, value, where)
        return tuple(_build(item_kind, item, f"{where}[{at}]") for at, item in enumerate(items))
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"{where} is {value!r}, which this version does not know")
        return value
    return _typed(kind, value, where)


def _build_fields(kind: Any, value: Any, where: str) -> Any:
    members: Mapping[str, Any] = _typed(dict, value, where)
    hints = typing.get_type_hints(kind)
    given = {name: hint for name, hint in hints.items() if _camel(name) in members}
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    missing = [_camel(name) for name in needed if name not in given]
    if missing:
        raise ValueError(f"{where}.{missing[0]} is missing")
    return kind(
        **{
            name: _build(hint, members[_camel(name)], f"{where}.{_camel(name)}")
            for name, hint in given.items()
        }
    )


def _typed(kind: type[Any] | types.UnionType, value: Any, where: str) -> Any:
    if type(value) is not kind:  # bool is an int for isinstance
        raise ValueError(f"{where} is not {getattr(kind, '__name__', kind)}")
    return value
