"""A tenant's keys as the Secret that the operator makes: `recover-keys` prints it, `backup` keeps it."""

from __future__ import annotations

import base64
import os
import secrets as randomness
from pathlib import Path
from typing import Any

import yaml

from tenant_backup.api.references import LABEL_TENANT
from tenant_backup.archive.keys import KEY_BYTES, IndexKey, TenantKeys
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.decisions.names import key_secret, shortened

from .private import write_private


def fresh() -> TenantKeys:
    """Make a tenant's keys."""
    return TenantKeys(IndexKey(randomness.token_bytes(KEY_BYTES)), randomness.token_bytes(KEY_BYTES))


def public(keys: TenantKeys) -> str:
    """Return the key that others trust, as hex."""
    return keys.signing().public_key().public_bytes_raw().hex()


def manifest(namespace: str, tenant: str, keys: TenantKeys) -> str:
    """Return the Secret as YAML, under the name that the operator gives it."""
    name = key_secret(tenant, public(keys))
    data = {"indexKey": keys.index.secret, "signingKey": keys.signing_seed}
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "tenant-backup-operator",
                LABEL_TENANT: shortened(tenant),
            },
        },
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
    return yaml.safe_dump(document, sort_keys=False)


def keep(file: Path, text: str) -> bool:
    """Create a keys file that only its owner can read; return False when there is one already.

    It appears whole or not at all, so that nobody ever signs with half a key.
    """
    temporary = file.with_name(f".{file.name}.{randomness.token_hex(8)}")
    write_private(temporary, text.encode())
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name has to outlive a crash as the backup will
    finally:
        os.close(folder)
    return True


def read(file: Path) -> TenantKeys | None:
    """Return the keys in a file; None when there is no such file. Raises Failure(KEY_MISSING)."""
    try:
        data: dict[str, Any] = yaml.safe_load(file.read_text())["data"]
        index, seed = (base64.b64decode(data[key], validate=True) for key in ("indexKey", "signingKey"))
        if len(index) == len(seed) == KEY_BYTES:
            return TenantKeys(IndexKey(index), seed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        pass  # not its own words: the keys are in it
    raise Failure(
        Reason.KEY_MISSING,
        f"{file} cannot be read as a tenant's keys; bring it back from a copy, or with"
        " `tenant-backup recover-keys`",
    )
