"""What `download` does for a verification: looks at objects, marks bad ones, finds who else needs them.

`examine` has the key and no way to the store; this has the way and no key.
"""

from __future__ import annotations

import secrets as randomness
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from tenant_backup.archive import manifest as manifests
from tenant_backup.archive import names
from tenant_backup.contract.reasons import Failure
from tenant_backup.stores.base import Digest, NotFoundError, Store, fetch, read

from .verification import AT_ONCE, look_at, mark_bad


class Inspector:
    """Answers questions from several threads; `count` is told how many bytes were read."""

    def __init__(self, store: Store, spool: Path, count: Callable[[int], None]) -> None:
        self._store, self._spool, self._count = store, spool, count
        self._slots = threading.Semaphore(AT_ONCE)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises Failure when the store cannot be asked, ValueError for no question."""
        if "check" in question:
            return self._check(question["check"], Digest(question["length"], question["sha256"]))
        if "keep" in question:
            return self._keep(question["keep"], Digest(question["length"], question["sha256"]))
        if "mark" in question:
            return {"refused": self._mark(question["mark"])}
        if "marked" in question:
            return {"marked": [entry.name.rsplit("/", 1)[-1] for entry in self._store.entries("bad")]}
        if "named" in question:
            return {"backups": self._backups(set(question["named"]))}
        if "older" in question:
            return {"names": self._older(set(question["older"]), question["than"])}
        raise ValueError(f"not a question: {sorted(question)}")

    def _check(self, name: str, expected: Digest) -> dict[str, Any]:
        with self._slots:
            found = look_at(self._store, name, expected)
        self._count(expected.length)
        return {"found": found}

    def _keep(self, name: str, expected: Digest) -> dict[str, Any]:
        """Look at an object and keep it; what is not as expected is not handed on."""
        target = self._spool / randomness.token_hex(16)
        try:
            with self._slots:
                actual = fetch(self._store, name, target)
        except NotFoundError:
            target.unlink()
            return {"found": "missing"}
        self._count(actual.length)
        if actual != expected:
            target.unlink()
            return {"found": "damaged"}
        return {"found": "ok", "path": str(target)}

    def _mark(self, name: str) -> str:
        object_id = name.rsplit("/", 1)[-1]
        if not names.is_id(object_id) or name not in (names.pack(object_id), names.index_pack(object_id)):
            raise ValueError(f"{name} is neither a pack nor a list")
        return mark_bad(self._store, name)

    def _backups(self, wanted: Collection[str]) -> list[str]:
        """Return the ids of the backups that need one of the objects `wanted`."""
        return [each.backup_id for each in self._manifests() if not _named(each).isdisjoint(wanted)]

    def _older(self, wanted: Collection[str], than: str) -> list[str]:
        """Return which of `wanted` a backup names that was completed earlier."""
        earlier = (each for each in self._manifests() if each.times.completed < than)
        return list({name for each in earlier for name in _named(each).intersection(wanted)})

    def _manifests(self) -> Iterator[manifests.Manifest]:
        for entry in self._store.entries("manifests"):
            try:
                yield manifests.parse(read(self._store, entry.name, manifests.MAX_LENGTH))
            except NotFoundError:
                continue  # deleted meanwhile
            except Failure as failure:
                if failure.reason not in manifests.UNREADABLE:
                    raise
                # It does not say what it needs.
                print(f"download: {entry.name} cannot be read: {failure.message}", flush=True)


def _named(manifest: manifests.Manifest) -> set[str]:
    packs = {names.pack(ref.id) for ref in manifest.packs}
    return packs | {names.index_pack(ref.id) for ref in manifest.lists}
