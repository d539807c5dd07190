"""The store's Secret as files: read here only, never logged, never in an error."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason

_KEYS = ("accessKeyId", "secretAccessKey")


@dataclass(frozen=True)
class S3Credentials:
    """What signs requests, and the certificate authority to trust (PEM; empty: the system's)."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    ca: bytes = b""


def s3(described: jobs.Store, secrets: Path) -> S3Credentials:
    """Read {secrets}/store and {secrets}/store-ca. Raises Failure SecretNotFound or KeyMissing."""
    folder = secrets / paths.STORE
    present = [key for key in _KEYS if (folder / key).is_file()]
    if not present:
        raise Failure(
            Reason.SECRET_NOT_FOUND,
            f'the store\'s Secret "{described.secret}" does not exist or has neither accessKeyId nor '
            "secretAccessKey; create it in the namespace of the BackupStore",
        )
    access, secret = (_value(folder, key, described.secret) for key in _KEYS)
    ca = secrets / paths.STORE_CA / "ca.crt"
    return S3Credentials(access, secret, ca.read_bytes() if ca.is_file() else b"")


def _value(folder: Path, key: str, secret: str) -> str:
    try:
        value = (folder / key).read_text().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        value = ""
    if not value:
        message = f'the store\'s Secret "{secret}" has no usable key {key}; add it'
        raise Failure(Reason.KEY_MISSING, message)
    return value
