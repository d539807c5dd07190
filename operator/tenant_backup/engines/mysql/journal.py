"""The journal of an exchange: a table in a database of its own, whose name says how far it got.

The name changes in the same RENAME TABLE that moves the tables, so it is never in doubt where they are.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from . import names
from .accounts import Account
from .endpoint import Connection
from .moving import Holdings
from .names import literal, quoted

_ALL = "SELECT table_schema, table_name FROM information_schema.TABLES WHERE table_schema LIKE {names}"


class State(Enum):
    """How far an exchange got."""

    BEFORE = "before"  # tables are where they were: what was dropped is put back
    AFTER = "after"  # tables have changed places: code follows
    BACK = "back"  # everything is where it was: accounts are unlocked, what is left over is dropped
    DONE = "done"  # everything has changed places: likewise


@dataclass(frozen=True)
class Journal:
    """What `live` holds goes to `kept`, and what `other` holds gets the name `live`."""

    uid: str  # of the TenantRestore
    live: str
    other: str  # the side database; of an undo `kept`
    kept: str
    word: str  # what `kept` is marked with in the end; empty: there was no live database, nothing is kept
    accounts: list[Account]  # locked as long as it lasts
    held: tuple[Holdings, Holdings] | None = None  # by live and other; None: nothing was changed yet

    @property
    def side(self) -> str:
        """Where tables wait while others change places."""
        return names.side_database(self.live, self.uid)

    @property
    def place(self) -> str:
        """Where the journal is."""
        return names.journal_database(self.uid)

    def begin(self, connection: Connection) -> None:
        """Write it: from now on the exchange is found, whoever dies. Raises Error."""
        connection.run(f"CREATE DATABASE IF NOT EXISTS {quoted(self.place)}")
        table = quoted(self.place, State.BEFORE.value)
        columns = "(id int PRIMARY KEY, words longblob)"  # some servers take no table without a key
        # One statement: there is no journal without its words.
        connection.run(
            f"CREATE TABLE {table} {columns} ENGINE=InnoDB SELECT 1 AS id, {self._words()} AS words"
        )

    def note(self, connection: Connection) -> None:
        """Write it anew. Raises Error."""
        connection.run(f"UPDATE {quoted(self.place, State.BEFORE.value)} SET words = {self._words()}")  # noqa: S608

    def move(self, old: State, new: State) -> tuple[str, str]:
        """Return what RENAME TABLE has to do to say how far it got."""
        return quoted(self.place, old.value), quoted(self.place, new.value)

    def moves(self, *, back: bool) -> list[tuple[str, str]]:
        """Return what RENAME TABLE has to do so that the tables change places, or go back."""
        assert self.held
        leaving, coming = (held.tables for held in (reversed(self.held) if back else self.held))
        source, target = (self.kept, self.other) if back else (self.other, self.kept)
        # Where both are one, what leaves waits in the side database.
        through = self.side if source == target else target
        moves = [(quoted(self.live, name), quoted(through, name)) for name in leaving]
        moves += [(quoted(source, name), quoted(self.live, name)) for name in coming]
        if through != target:
            moves += [(quoted(through, name), quoted(target, name)) for name in leaving]
        states = (State.AFTER, State.BEFORE) if back else (State.BEFORE, State.AFTER)
        return [*moves, self.move(*states)]

    def _words(self) -> str:
        return literal(json.dumps(dataclasses.asdict(self)))


def find(connection: Connection) -> list[tuple[State, Journal]]:
    """Read all journals of a server. Raises Error."""
    pattern = literal(names.JOURNALS.replace("_", "\\_") + "%")
    tables = [(str(place), str(name)) for place, name in connection.rows(_ALL.format(names=pattern))]
    return [
        (State(name), _read(connection, place, name)) for place, name in tables if place != names.REGISTRY
    ]


def _read(connection: Connection, place: str, table: str) -> Journal:
    words = connection.scalar(f"SELECT words FROM {quoted(place, table)}")  # noqa: S608 - quoted names
    return _journal(json.loads(words or ""))


def _journal(document: dict[str, Any]) -> Journal:
    held = document["held"]
    return Journal(
        **{
            **document,
            "accounts": [Account(**account) for account in document["accounts"]],
            "held": (Holdings.of_json(held[0]), Holdings.of_json(held[1])) if held else None,
        }
    )
