"""The keys that the stages `archive` and `open` find mounted, and what they say when one is not there."""

from __future__ import annotations

from tenant_backup.archive.keys import KEY_BYTES, Identity
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason


def mounted_key(name: str) -> bytes:
    """Return one of the tenant's own keys. Raises Failure(KEY_MISSING)."""
    key = mounted_key_or_none(name)
    if key is None:
        raise Failure(
            Reason.KEY_MISSING,
            f'the tenant\'s key Secret is gone or has no key "{name}" of {KEY_BYTES} bytes; bring it back'
            " with `tenant-backup recover-keys` and the identity, or from a copy",
        )
    return key


def mounted_key_or_none(name: str) -> bytes | None:
    """Return one of the tenant's own keys, or None when there is none that could be one."""
    key = _read(paths.KEYS, name)
    return key if key is not None and len(key) == KEY_BYTES else None


def mounted_identity(secret: str) -> Identity:
    """Return the identity; `secret` is its Secret's name. Raises Failure: KEY_MISSING, WRONG_KEY."""
    text = _read(paths.IDENTITY, "identity")
    if text is None:
        where = (
            f'Secret "{secret}" has no key "identity"' if secret else "no Secret with an identity is named"
        )
        raise Failure(
            Reason.KEY_MISSING,
            f"{where}; create it with the file age-keygen made, and name it in spec.identitySecretRef",
        )
    return Identity.parse(text.decode(errors="replace"))


def _read(folder: str, name: str) -> bytes | None:
    try:
        return (paths.SECRETS / folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
