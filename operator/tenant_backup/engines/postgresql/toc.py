"""The table of contents of a pg_dump archive: what of it may be restored without administrator rights.

Pure functions over the text of `pg_restore --list --verbose`. What needs more than the temporary login has is
left out together with everything that depends on it; a table with rows is never left out, that is a failure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from tenant_backup.contract.reasons import Failure, Reason

_LINE = re.compile(r"^(\d+); (\d+) (\d+) (.*)$")
_DEPENDS = re.compile(r"^;\s+depends on:(.*)$")
# Created by superusers only, whatever is in them.
_PRIVILEGED = (
    "ACCESS METHOD",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "SECURITY LABEL",
    "SUBSCRIPTION",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
)
_NOT_OURS = ("DATABASE", "ENCODING", "STDSTRINGS", "SEARCHPATH")  # restored from the catalogue instead
_GO_ALONG = ("COMMENT", "ACL", "DEFAULT ACL", "SECURITY LABEL")  # with what they are about
_PG_PROC = 1255  # OID of the system catalogue, the same in every server


@dataclass(frozen=True)
class Entry:
    """One line: `text` is its type, schema, name and owner, as pg_restore prints them."""

    id: int
    catalogue: int  # OID of the system catalogue it comes from
    oid: int
    text: str
    depends_on: frozenset[int] = frozenset()

    @property
    def line(self) -> str:
        """Its line for `pg_restore --use-list`."""
        return f"{self.id}; {self.catalogue} {self.oid} {self.text}\n"

    def is_a(self, kinds: Collection[str]) -> bool:
        """Whether the entry is of one of these types."""
        return any(self.text.startswith(f"{kind} ") for kind in kinds)


@dataclass(frozen=True)
class Limits:
    """What this restore cannot create."""

    extensions: Collection[str] = ()  # that the login may create here
    publications: Collection[str] = ()  # of all tables
    functions: Collection[int] = ()  # OIDs, in untrusted languages
    policies: Collection[tuple[str, str, str]] = ()  # schema, table, name: for roles that do not exist here
    tables_with_rows: Collection[tuple[str, str]] = ()
    loose_keys: Collection[tuple[str, str, str]] = ()  # schema, table, name: created apart


@dataclass(frozen=True)
class Contents:
    """What to restore, in order, and what is left out."""

    kept: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def own_indexes(self, schema: str, table: str) -> list[Entry]:
        """Return the indexes and keys of a table that stand on nothing but the table."""
        found = [entry.id for entry in self.kept if entry.text.startswith(f"TABLE {schema} {table} ")]
        if len(found) != 1:  # names may contain spaces: `a` begins like `a b`
            return []
        return [
            entry
            for entry in self.kept
            if entry.is_a(("INDEX", "CONSTRAINT")) and entry.depends_on == frozenset(found)
        ]

    def other_owners(self, owner: str) -> Counter[str]:
        """Count the objects that belonged to somebody else, by that role."""
        own = [entry for entry in self.kept if not entry.is_a(_GO_ALONG)]
        return Counter(name for entry in own if (name := entry.text.rpartition(" ")[2]) and name != owner)


def parse(listing: str) -> list[Entry]:
    """Read the verbose listing."""
    entries: list[Entry] = []
    for line in listing.splitlines():
        if found := _LINE.match(line):
            entries.append(Entry(int(found[1]), int(found[2]), int(found[3]), found[4]))
        elif entries and (found := _DEPENDS.match(line)):
            last = entries[-1]
            depends = frozenset(map(int, found[1].split()))
            entries[-1] = Entry(last.id, last.catalogue, last.oid, last.text, depends)
    return entries


def sift(entries: list[Entry], limits: Limits) -> Contents:
    """Decide what to restore. Raises PERMISSION_DENIED when a table with rows would have to be left out."""
    foreign = _with_dependents(entries, {entry.id for entry in entries if entry.is_a(_NOT_OURS)})
    refused = {entry.id for entry in entries if entry.id not in foreign and _needs_more(entry, limits)}
    skipped = _with_dependents(entries, refused) - foreign
    _refuse_lost_rows(entries, skipped, refused, limits)
    left = [entry for entry in entries if entry.id not in foreign | skipped]
    kept = without_loose_keys(left, limits.loose_keys)
    told = [e.text.strip() for e in entries if e.id in skipped and not e.is_a(_GO_ALONG)]
    return Contents(kept, told)


def without_loose_keys(entries: list[Entry], keys: Collection[tuple[str, str, str]]) -> list[Entry]:
    """Leave out foreign keys (schema, table, name) whose rows are not all in the backup."""
    starts = tuple(f"FK CONSTRAINT {' '.join(key)} " for key in keys)
    return [entry for entry in entries if not entry.text.startswith(starts)]


def _needs_more(entry: Entry, limits: Limits) -> bool:
    if entry.is_a(("EXTENSION",)):
        return entry.text.split()[2] not in limits.extensions
    if entry.is_a(("PUBLICATION",)):
        return any(entry.text.startswith(f"PUBLICATION - {name} ") for name in limits.publications)
    if entry.is_a(("POLICY",)):
        return any(entry.text.startswith(f"POLICY {' '.join(policy)} ") for policy in limits.policies)
    return entry.is_a(_PRIVILEGED) or (entry.catalogue == _PG_PROC and entry.oid in limits.functions)


def _with_dependents(entries: list[Entry], ids: set[int]) -> set[int]:
    found = set(ids)
    while more := {entry.id for entry in entries if entry.depends_on & found} - found:
        found |= more
    return found


def _refuse_lost_rows(entries: list[Entry], skipped: set[int], refused: set[int], limits: Limits) -> None:
    names = [f"TABLE {schema} {name} " for schema, name in limits.tables_with_rows]
    lost = [e.text for e in entries if e.id in skipped and e.text.startswith(tuple(names))]
    if lost:
        cause = next(entry.text.strip() for entry in entries if entry.id in refused)
        message = f"{lost[0].strip()} depends on {cause}, which only an administrator may create"
        raise Failure(Reason.PERMISSION_DENIED, message)
