"""Reading back what is in the store, and saying whether it can be trusted.

It comes after the commit: a committed backup is Succeeded, and what is found here makes it Healthy or
Corrupt, never Failed. When the store cannot be asked its health stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from tenant_backup.archive import collector, names
from tenant_backup.archive.manifest import Manifest
from tenant_backup.contract.reasons import Failure
from tenant_backup.stores.base import Digest, NotFoundError, Store, digest_in

from .progress import Progress

AT_ONCE = 3  # objects read at a time
AT_THE_COMMIT = 64 << 20  # bytes; more is left to a Job of its own
DAYS = 7  # in which all that earlier runs wrote is read once
MESSAGE_LIMIT = 900  # bytes of JSON: the result has 2 KiB
BACKUPS_LIMIT = 700  # likewise
_NAMED = 3  # of each sort in the message; the log has them all

Found = Literal["ok", "damaged", "missing"]


def is_due(object_id: str, day: int) -> bool:
    """Whether an older pack or list is read on this day: a seventh of them each day, without a memory."""
    return int(object_id[:8], 16) % DAYS == day % DAYS


def look_at(store: Store, name: str, expected: Digest) -> Found:
    """Read an object and say how it is. Raises Failure when the store cannot be asked."""
    try:
        return "ok" if digest_in(store, name) == expected else "damaged"
    except NotFoundError:
        return "missing"


def mark_bad(store: Store, name: str) -> str:
    """Have no later backup refer to `name`; return why that could not be written, or nothing.

    What was found must be told in any case, and a verifier may lack the right to write.
    """
    try:
        collector.mark_bad(store, name, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    except Failure as failure:
        return failure.message
    return ""


@dataclass
class Findings:
    """What a verification found. While nothing is in it the backup is as it was written."""

    damage: dict[str, Found] = field(default_factory=dict)  # by object
    wrong: list[str] = field(default_factory=list)  # sentences: what is damaged in other ways
    tables: list[str] = field(default_factory=list)  # that cannot be restored whole
    backups: list[str] = field(default_factory=list)  # others that need the damaged objects
    warnings: list[str] = field(default_factory=list)  # sentences: what else will be missed one day
    doubts: list[str] = field(default_factory=list)  # sentences: what could not be found out or written
    objects: int = 0  # read
    bytes: int = 0  # read

    def facts(self, level: str) -> dict[str, Any]:
        """Return `{"health", "verification": {"level", "message"}, "checked": {"objects", "bytes"}}`.

        With damage also `damaged` (a few names) and `backups` (ids of the others that are hit, as many
        as fit into a result).
        """
        bad = bool(self.damage or self.wrong)
        facts: dict[str, Any] = {
            "health": "Corrupt" if bad else "Degraded" if self.warnings else "Healthy",
            "verification": {"level": level, "message": _cut(self._message() if bad else self._all_well())},
            "checked": {"objects": self.objects, "bytes": self.bytes},
        }
        return facts | ({"damaged": self._damaged(), "backups": _fitting(self.backups)} if bad else {})

    def tell(self) -> None:
        """Print everything that was found, one numbered JSON line each: a result has no room for it."""
        lines: list[dict[str, Any]] = [{"object": name, "found": how} for name, how in self.damage.items()]
        lines += [{"wrong": sentence} for sentence in self.wrong]
        lines += [{"table": table} for table in self.tables]
        lines += [{"backup": backup} for backup in self.backups]
        for number, line in enumerate(lines, 1):
            print(json.dumps({"finding": number, "of": len(lines), **line}, ensure_ascii=False), flush=True)

    def _all_well(self) -> str:
        read = f"{self.objects} objects with {self.bytes} bytes were read back"
        return "; ".join([*self.warnings, read, *self.doubts])

    def _message(self) -> str:
        said = [self._damaged()] if self.damage else []
        said += _some(self.wrong)
        said += [f"tables hit: {_list(self.tables)}"] if self.tables else []
        said += [f"other backups hit: {_list(self.backups)}"] if self.backups else []
        return "; ".join([*said, *self.warnings, *self.doubts, "make a new backup"])

    def _damaged(self) -> str:
        return _list([f"{name} is {how}" for name, how in self.damage.items()])


def verify(store: Store, manifest: Manifest, written: Mapping[str, Digest]) -> dict[str, Any]:
    """Look at what this run has `written` right after its commit, and at older objects that are due.

    Return facts; none when there is much to read: a Job of its own does it, and the backup is not kept
    waiting. Which tables damage hits only that Job can say, and it follows when there is any.
    """
    # A copy of the keys is no part of what can be lost with a pack: Contents tries to open it.
    own = {name: digest for name, digest in written.items() if not name.startswith("keys/")}
    due = {**_older_due(manifest), **own}
    total = sum(digest.length for digest in due.values())
    if total > AT_THE_COMMIT:
        return {}
    findings = Findings(objects=len(due), bytes=total)
    try:
        with Progress("Verify", total) as progress:
            findings.damage = _looked_at(store, due, progress.add)
    except Failure as failure:
        # Also when the container is asked to stop: the commit stands, and a Job looks again.
        print(f"upload: not verified: {failure.message}", flush=True)
        return {}
    findings.doubts = unmarked(findings.damage, lambda name: mark_bad(store, name))
    findings.tell()
    facts = findings.facts("Checksum")
    return {key: facts[key] for key in ("health", "verification")}


def unmarked(damage: Iterable[str], mark: Callable[[str], str]) -> list[str]:
    """Have each damaged object marked; return a sentence when that could not be done."""
    refusals = [why for name in damage if (why := mark(name))]
    if not refusals:
        return []
    return [f"later backups may refer to it, because no mark could be written: {refusals[0][:200]}"]


def _older_due(manifest: Manifest) -> dict[str, Digest]:
    day = date.fromisoformat(manifest.times.started[:10]).toordinal()
    refs = {names.pack(ref.id): ref for ref in manifest.packs}
    refs |= {names.index_pack(ref.id): ref for ref in manifest.lists}
    return {name: Digest(ref.length, ref.sha256) for name, ref in refs.items() if is_due(ref.id, day)}


def _looked_at(store: Store, objects: Mapping[str, Digest], count: Callable[[int], None]) -> dict[str, Found]:
    def look(item: tuple[str, Digest]) -> Found:
        found = look_at(store, *item)
        count(item[1].length)
        return found

    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="verify")
    try:
        founds = pool.map(look, objects.items())
        return {name: found for name, found in zip(objects, founds, strict=True) if found != "ok"}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _some(items: list[str]) -> list[str]:
    more = len(items) - _NAMED
    return [*items[:_NAMED], *([f"{more} more"] if more > 0 else [])]


def _list(items: list[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _length(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _cut(message: str) -> str:
    while _length(message) > MESSAGE_LIMIT:
        message = message[: len(message) * 9 // 10 - 1] + "…"
    return message


def _fitting(items: list[str]) -> list[str]:
    while _length(items) > BACKUPS_LIMIT:
        items = items[: len(items) * 9 // 10]
    return items
