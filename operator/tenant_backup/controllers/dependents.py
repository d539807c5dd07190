"""Who waits for whom: an object that waits is looked at again when what it waits for changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tenant_backup.decisions.verdicts import Ref


class Dependents:
    """Remembers waiting objects only, so it is empty when all is well."""

    def __init__(self) -> None:
        self._waiting: defaultdict[Ref, set[Ref]] = defaultdict(set)
        self._on: dict[Ref, tuple[Ref, ...]] = {}

    def wait(self, who: Ref, on: Iterable[Ref]) -> None:
        """Remember what `who` waits for now, instead of what it waited for before."""
        for ref in self._on.pop(who, ()):
            self._waiting[ref].discard(who)
            if not self._waiting[ref]:
                del self._waiting[ref]
        refs = tuple(on)
        if refs:
            self._on[who] = refs
        for ref in refs:
            self._waiting[ref].add(who)

    def of(self, changed: Ref) -> tuple[Ref, ...]:
        """Return who waits for `changed`."""
        return tuple(self._waiting.get(changed, ()))
