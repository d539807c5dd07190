"""What the objects of one tenant are called, relative to the tenant's prefix in the store."""

from __future__ import annotations

import re
import secrets

ID_BYTES = 16  # random, so that two writers never meet
_ID = re.compile(r"[0-9a-f]{32}")
_BACKUP_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


def new_id() -> str:
    """Return a new random pack or list id: 32 hex digits."""
    return secrets.token_hex(ID_BYTES)


def is_id(text: object) -> bool:
    """Say whether `text` is a pack or list id."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def is_backup_id(text: object) -> bool:
    """Say whether `text` can be a backup id: safe as the last part of an object's name."""
    return isinstance(text, str) and _BACKUP_ID.fullmatch(text) is not None


def pack(pack_id: str) -> str:
    """Return the name of a pack; the first two digits spread packs over 256 folders."""
    return f"packs/{pack_id[:2]}/{pack_id}"


def index_pack(list_id: str) -> str:
    """Return the name of an index pack: chunk lists and catalogue."""
    return f"lists/{list_id}"


def wrapped_key(key: str, recipient_set: str) -> str:
    """Return the name of a key for one set of recipients: the tenant's keys, or a rewrapped data key."""
    return f"keys/{key}.{recipient_set}.age"


def readable_index_key(key_id: str) -> str:
    """Return the name of the index key of backups that are not encrypted."""
    return f"keys/{key_id}.none"


def manifest(backup_id: str) -> str:
    """Return the name of a backup's manifest: its existence is the commit."""
    return f"manifests/{backup_id}"


def bad(object_id: str) -> str:
    """Return the name of the mark that a pack or list is damaged."""
    return f"bad/{object_id}"


def gc(collection_id: str) -> str:
    """Return the name of an object that names what is to be deleted."""
    return f"gc/{collection_id}"
