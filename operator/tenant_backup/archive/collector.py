"""Which objects no backup needs any more, and when it is safe to delete them.

Nobody takes a lock: a writer may refer to an old pack at the very moment the collector looks at it. So
an object is deleted in two collections. The first names it in a `gc/` object, because no manifest names
it; from then on no writer refers to it (`unusable`, and `check_references` before each commit). The
second comes a grace later, when every writer that had checked before that has committed or given up:
from here on the manifests that name it can only become fewer, so one that nobody names now is named
never again, and any number of collectors, however slow, may delete it.

That holds only while the `gc/` object is there: it goes after the last object it names.
Time is the store's own: `modified` of one object against that of another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from tenant_backup.contract.objects import (
    AlreadyExistsError,
    Buffer,
    Digest,
    Entry,
    NotFoundError,
    digest_of,
    read,
)
from tenant_backup.contract.reasons import Failure, Reason

from . import names
from .manifest import MAX_LENGTH, Manifest, parse

MAX_RUN = 24 * 3600.0  # seconds from `prepare` to the commit; no backup has a longer deadline
GRACE = 25 * 3600.0  # seconds; an hour more than MAX_RUN for clocks that disagree and answers under way
NAMES_AT_ONCE = 10_000  # in one gc object: half a megabyte
_GC_LIMIT = 1 << 20  # bytes


class Objects(Protocol):
    """The objects of one tenant's prefix; `stores.base.Store` has the promises in full."""

    def put(self, name: str, source: bytes, digest: Digest) -> None:
        """Create `name`. Raises AlreadyExistsError."""

    def chunks(self, name: str) -> Iterator[Buffer]:
        """Yield the object's bytes. Raises NotFoundError."""

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """Yield every object below `folder/` whose name is greater than `after`, sorted, complete."""

    def delete(self, name: str) -> None:
        """Delete the object, if there is one."""


@dataclass(frozen=True)
class Collected:
    """What one collection did, or with `dry_run` would have done. `freed` and `used` in bytes."""

    candidates: tuple[str, ...] = ()  # newly named: deleted by a collection after the grace
    deleted: tuple[str, ...] = ()
    freed: int = 0
    used: int = 0  # of all packs and lists that are left
    backups: int = 0


def unusable(objects: Objects) -> set[str]:
    """Return the names of packs and lists that no new backup may refer to: damaged, or to be deleted.

    Raises Failure(CHECKSUM_MISMATCH) when a gc object cannot be read.
    """
    return {name for marked in _marked(objects) for name in (names.pack(marked), names.index_pack(marked))}


def mark_bad(objects: Objects, name: str, found: str) -> None:
    """Record that pack or list `name` is damaged or missing; `found` is RFC 3339. Again is fine."""
    text = json.dumps({"by": "verify", "found": found, "object": name}).encode() + b"\n"
    with suppress(AlreadyExistsError):
        objects.put(names.bad(name.rsplit("/", 1)[-1]), text, digest_of(text))


def check_references(
    objects: Objects, manifest: Manifest, own: Collection[str], age: float, max_run: float = MAX_RUN
) -> None:
    """Raise Failure (retriable) unless everything that `manifest` names will be there after its commit.

    `own` are the names this run put itself; `age` is how long ago, in seconds, its `prepare` began.
    Ask right before the commit. When the commit was acknowledged at an `age` above `max_run`, because
    the machine slept meanwhile, ask `check_committed` before calling it a success.
    """
    if age > max_run:
        raise Failure(
            Reason.DEADLINE_EXCEEDED,
            f"the run took {age:.0f} s and its older packs are safe for {max_run:.0f} s only; try again",
            retriable=True,
        )
    _require(objects, {name: length for name, length in _named(manifest).items() if name not in own})


def check_committed(objects: Objects, manifest: Manifest) -> None:
    """Raise Failure (retriable) unless nothing that `manifest` names is gone or will ever be collected.

    Exact whatever the clocks say, for a manifest that is in the store already.
    """
    _require(objects, _named(manifest))


def mark(objects: Objects, *, grace: float = GRACE) -> int:
    """Name what no manifest names, the first half of a collection; return how many objects that is.

    Raises what `collect` raises.
    """
    found = _survey(objects, _store_time(objects) - grace)
    _mark(objects, found.candidates)
    return len(found.candidates)


def collect(
    objects: Objects,
    *,
    grace: float = GRACE,
    dry_run: bool = False,
    deleted: Callable[[str, int], None] = lambda _name, _length: None,
) -> Collected:
    """Name what no manifest names; delete what was named a grace ago and still is named by none.

    Calls `deleted(name, length)` for each object. May die anywhere and be repeated; several may run at
    once. With `dry_run` nothing is written, and the grace is measured by this machine's clock.
    Memory: the ids that manifests name, and the names of the objects that none does.
    Raises Failure when a manifest or a gc object cannot be read (it may name anything), and what the
    store raises.
    """
    now = time.time() if dry_run else _store_time(objects)
    found = _survey(objects, now - grace)
    if not dry_run:
        _mark(objects, found.candidates)
        _sweep(objects, found, deleted)
    freed = sum(found.unnamed.get(name, 0) for name in found.doomed)
    return Collected(found.candidates, found.doomed, freed, found.used - freed, found.backups)


@dataclass
class _Survey:
    """What is in the prefix, as far as it matters here."""

    candidates: tuple[str, ...] = ()
    doomed: tuple[str, ...] = ()  # in the order in which they may be deleted
    finished: tuple[str, ...] = ()  # gc objects of which nothing is left after that
    unnamed: dict[str, int] = field(default_factory=dict)  # lengths of packs and lists no manifest names
    used: int = 0
    backups: int = 0


def _survey(objects: Objects, before: float) -> _Survey:
    """Look at everything; `before` is a grace ago."""
    # The manifests are read after the gc objects: what they do not name a grace later is safe to delete.
    gc = [(entry, _gc_names(objects, entry.name)) for entry in objects.entries("gc")]
    marks = {entry.name for entry in objects.entries("bad")}
    named, backups = _named_by_all(objects)
    seen = _Survey(backups=backups)
    old = []
    orphans = {mark for mark in marks if _id(mark) not in named}
    for entry in _packs_and_lists(objects):
        seen.used += entry.length
        orphans.discard(names.bad(_id(entry.name)))
        if _id(entry.name) not in named:
            seen.unnamed[entry.name] = entry.length
            old += [entry.name] if entry.modified < before else []
    pending = {name for _entry, listed in gc for name in listed}
    seen.candidates = tuple(name for name in (*old, *sorted(orphans)) if name not in pending)
    due = [(entry.name, listed) for entry, listed in gc if entry.modified < before]
    seen.doomed = tuple(_doomed((name for _gc, listed in due for name in listed), named, seen.unnamed, marks))
    seen.finished = tuple(name for name, listed in due if all(_id(one) not in named for one in listed))
    return seen


def _doomed(
    listed: Iterable[str], named: Collection[str], unnamed: Collection[str], marks: Collection[str]
) -> list[str]:
    """Return what of `listed` is there and named by no manifest, each with the mark that it is bad."""
    doomed: dict[str, None] = {}
    for name in listed:
        if _id(name) not in named:
            doomed |= {one: None for one in (name, names.bad(_id(name))) if one in unnamed or one in marks}
    return list(doomed)


def _mark(objects: Objects, candidates: Iterable[str]) -> None:
    left = iter(candidates)
    while some := list(islice(left, NAMES_AT_ONCE)):
        _put_gc(objects, some)


def _sweep(objects: Objects, found: _Survey, deleted: Callable[[str, int], None]) -> None:
    for name in found.doomed:
        objects.delete(name)
        deleted(name, found.unnamed.get(name, 0))
    for name in found.finished:
        objects.delete(name)


def _put_gc(objects: Objects, listed: list[str]) -> str:
    name, text = names.gc(names.new_id()), json.dumps({"objects": listed}).encode() + b"\n"
    objects.put(name, text, digest_of(text))
    return name


def _store_time(objects: Objects) -> float:
    """Return the store's time, in seconds. Dying here leaves an empty gc object, which is collected too."""
    name = _put_gc(objects, [])
    found = [entry.modified for entry in objects.entries("gc", name[:-1]) if entry.name == name]
    objects.delete(name)
    if not found:
        message = f"{name} was written and is not listed; use a store with listings that are complete at once"
        raise Failure(Reason.STORE_UNAVAILABLE, message, retriable=True)
    return found[0]


def _named_by_all(objects: Objects) -> tuple[set[str], int]:
    """Return the ids that manifests name, and how many manifests there are."""
    named: set[str] = set()
    backups = 0
    for entry in objects.entries("manifests"):
        try:
            data = read(objects, entry.name, MAX_LENGTH)
        except NotFoundError:
            continue  # deleted since it was listed
        backups += 1
        manifest = _parsed(entry.name, data)
        named.update(ref.id for ref in (*manifest.packs, *manifest.lists))
    return named, backups


def _parsed(name: str, data: bytes) -> Manifest:
    try:
        return parse(data)
    except Failure as failure:
        raise Failure(
            failure.reason,
            f"nothing is collected, because {name} may name any object and cannot be read:"
            f" {failure.message}; or delete it",
        ) from None


def _named(manifest: Manifest) -> dict[str, int]:
    """Return name and length of every object a manifest names."""
    packs = {names.pack(ref.id): ref.length for ref in manifest.packs}
    return packs | {names.index_pack(ref.id): ref.length for ref in manifest.lists}


def _require(objects: Objects, needed: dict[str, int]) -> None:
    if not needed:
        return
    # First the marks, then the objects: one that a collector deletes in between is missed by the list.
    refused = needed.keys() & unusable(objects)
    if refused:
        _refuse(f"{min(refused)} is damaged or about to be deleted")
    missing = dict(needed)
    for entry in _packs_and_lists(objects):
        if missing.get(entry.name) == entry.length:
            del missing[entry.name]
    if missing:
        _refuse(f"{min(missing)} is missing or has another length")


def _refuse(what: str) -> None:
    message = f"an earlier backup's {what}, so this one cannot refer to it; the next attempt stores it anew"
    raise Failure(Reason.PACK_MISSING, message, retriable=True)


def _marked(objects: Objects) -> Iterator[str]:
    """Yield the ids in bad/ and gc/."""
    yield from (_id(entry.name) for entry in objects.entries("bad"))
    for entry in objects.entries("gc"):
        yield from (_id(name) for name in _gc_names(objects, entry.name))


def _gc_names(objects: Objects, name: str) -> list[str]:
    """Return what a gc object names; nothing when it was deleted since it was listed."""
    try:
        listed = json.loads(read(objects, name, _GC_LIMIT))["objects"]
    except NotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(map(_is_ours, listed)):
        message = f"{name} is no list of objects to delete, so it may mean any; delete it"
        raise Failure(Reason.CHECKSUM_MISMATCH, message)
    return listed


def _packs_and_lists(objects: Objects) -> Iterator[Entry]:
    for folder in ("packs", "lists"):
        yield from (entry for entry in objects.entries(folder) if _is_ours(entry.name))


def _id(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _is_ours(name: object) -> bool:
    """Say whether a collection may delete an object of this name at all."""
    if not isinstance(name, str) or not names.is_id(_id(name)):
        return False
    return name in (names.pack(_id(name)), names.index_pack(_id(name)), names.bad(_id(name)))
