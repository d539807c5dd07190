"""Finds the keys of one backup: the cluster's own, those in its packs, and those in `keys/`.

What was wrapped to others may have been wrapped again for us: `rewrap` puts such a key into `keys/` under
a name made of the key's own and of one recipient, so a reader finds it without a list of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tenant_backup.contract.reasons import Failure, Reason

from . import names
from .frame import Damaged
from .keys import KEY_BYTES, DataKey, Identity, IndexKey, TenantKeys, recipient_set, wrapped_id
from .manifest import Manifest

WRAPPED_MAX = 1 << 20  # bytes; a key wrapped to a thousand recipients has 100 KiB
_SHOWN = 3  # recipients in a message


class KeyFinder:
    """The keys of one backup for one identity; None is enough when the backup is not encrypted.

    May be used by several threads at once.
    """

    def __init__(
        self, manifest: Manifest, identity: Identity | None, read: Callable[[str], bytes | None]
    ) -> None:
        """Look into `keys/` with `read`, which gives a small object whole, None when there is none."""
        self._manifest, self._identity, self._read = manifest, identity, read
        self._found: dict[str, bytes] = {}  # data keys by wrapped id

    def index_key(self, mounted: bytes | None) -> IndexKey:
        """Return the index key: of the mounted one if it is that, else the copy in the store.

        Raises Failure: WRONG_KEY, KEY_MISSING.
        """
        encryption = self._manifest.encryption
        if mounted is not None and (own := IndexKey(mounted).of(encryption.mode)).key_id == encryption.key_id:
            return own
        return self._readable_index_key() if encryption.mode == "None" else self.tenant_keys().index

    def tenant_keys(self) -> TenantKeys:
        """Return the tenant's keys from the store by the identity. Raises Failure: WRONG_KEY, KEY_MISSING."""
        if self._manifest.encryption.mode == "None":
            raise Failure(
                Reason.KEY_MISSING,
                f"backup {self._manifest.backup_id} is not encrypted, and the store has the tenant's keys"
                " beside encrypted ones only; bring the key Secret back from a copy",
            )
        copies = [copy for name in self._names_of_tenant_keys() if (copy := self._read(name)) is not None]
        opened = [joined for copy in copies if (joined := self._open(copy, 2 * KEY_BYTES)) is not None]
        found = [TenantKeys.split(joined) for joined in opened]
        for keys in found:
            if keys.index.key_id == self._manifest.encryption.key_id:
                return keys
        if copies and not opened:
            raise self._closed("the keys")
        raise self._missing(next(self._names_of_tenant_keys()))

    def data_key(self, wrapped: bytes, pack: str) -> DataKey:
        """Return the key of the rows from its copy in `pack`.

        Raises Failure: WRONG_KEY, KEY_MISSING; or Damaged.
        """
        if self._manifest.encryption.mode == "None":
            if len(wrapped) != KEY_BYTES:
                raise Damaged("its data key is not one")
            return DataKey(wrapped, wrapped)
        name = wrapped_id(wrapped)
        if name not in self._found:
            secret = self._open(wrapped, KEY_BYTES) or self._rewrapped(name)
            if secret is None:
                raise self._closed(pack)
            self._found[name] = secret
        return DataKey(self._found[name], wrapped)

    def _readable_index_key(self) -> IndexKey:
        key_id = self._manifest.encryption.key_id
        name = names.readable_index_key(key_id)
        copy = self._read(name)
        if copy is not None and len(copy) == KEY_BYTES and IndexKey(copy).key_id == key_id:
            return IndexKey(copy)
        raise self._missing(name)

    def _names_of_tenant_keys(self) -> Iterator[str]:
        encryption = self._manifest.encryption
        yield names.wrapped_key(encryption.key_id, encryption.recipient_set)
        yield from self._names_for_us(encryption.key_id)

    def _names_for_us(self, key: str) -> Iterator[str]:
        for recipient in self._identity.recipients if self._identity else ():
            yield names.wrapped_key(key, recipient_set([recipient]))

    def _rewrapped(self, name: str) -> bytes | None:
        for rewrapped in self._names_for_us(name):
            copy = self._read(rewrapped)
            secret = None if copy is None else self._open(copy, KEY_BYTES)
            if secret is not None:
                return secret
        return None

    def _open(self, wrapped: bytes, length: int) -> bytes | None:
        return self._identity.open(wrapped, length) if self._identity else None

    def _missing(self, name: str) -> Failure:
        return Failure(
            Reason.KEY_MISSING,
            f"neither the tenant's key Secret nor {name} in the store is the index key of backup"
            f" {self._manifest.backup_id}; bring one of them back from a copy",
        )

    def _closed(self, what: str) -> Failure:
        made_for = _shown(self._manifest.encryption.recipients)
        if self._identity is None:
            return Failure(
                Reason.KEY_MISSING,
                f"{what} of backup {self._manifest.backup_id} opens only with an identity, and none was"
                f" given; use that of one of {made_for}",
            )
        return Failure(
            Reason.WRONG_KEY,
            f"the identity of {_shown(self._identity.recipients)} does not open {what} of backup"
            f" {self._manifest.backup_id}, which was made for {made_for}; use the identity of one of these,"
            " or let it add yours with `tenant-backup rewrap`",
        )


def _shown(recipients: tuple[str, ...]) -> str:
    more = len(recipients) - _SHOWN
    return ", ".join(recipients[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
