"""Giving a database what another one holds: MariaDB cannot rename databases.

The accounts of the applications are locked and their sessions ended; triggers, which keep tables from
moving, are dropped; one RENAME TABLE, which the server does as a whole or not at all, moves both sets of
tables; code is created again on both sides; the accounts are unlocked. A journal says how far that got.
Whoever comes after a killed attempt finishes it if the tables have changed places, or else puts back what was
dropped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.marks import noted

from . import accounts, failures, moving, names
from . import journal as journals
from .accounts import Account
from .administrator import Administrator
from .journal import Journal, State
from .moving import Holdings
from .names import quoted

Held = tuple[Holdings, Holdings]  # what the live database had, and the one whose contents become live

_WAITED = 1205  # for a lock, in vain


def replace(admin: Administrator, live: str, like: dict[str, Any]) -> tuple[str | None, list[str]]:
    """Put the side database's contents in the place of `live`; if that was lost it is created as `like` says.

    Return what the previous database is called, None when there was none to keep, and which views could not
    be created again. Raises Failure, and then `settle` has to follow.
    """
    side, kept = names.side_database(live, admin.uid), names.previous_database(live, admin.uid)
    lost = admin.mark(live) is None
    journal = _journal(admin, live, other=side, kept=kept, word="" if lost else "previous")
    told = _carry_out(admin, journal, like)
    return (None if lost else kept), told


def switch_back(admin: Administrator, live: str) -> None:
    """Undo a Replace: what `live` holds and what was kept change places. See `replace`."""
    kept = names.previous_database(live, admin.uid)
    like = admin.properties(kept)
    assert like
    _carry_out(admin, _journal(admin, live, other=kept, kept=kept, word="undone"), like)


def settle(admin: Administrator, live: str) -> None:
    """Finish or take back what is left of an exchange of `live`, by whichever restore. Raises Failure."""
    try:
        moving.settle_session(admin.connection)  # it may have ended in the middle of a definition's
        for state, journal in journals.find(admin.connection):
            if journal.live == live or journal.uid == admin.uid:
                _settle(admin, state, journal)
        place = names.journal_database(admin.uid)
        if admin.mark(place) is not None:  # nothing had been written yet
            admin.drop(place)
    except Error as error:
        raise _failure(error, live) from error


def movable(admin: Administrator, live: str) -> list[Account]:
    """Return the accounts to lock out while `live` is replaced. Raises Failure where it cannot be."""
    try:
        moving.refuse_foreign_keys(admin.connection, live)
        return accounts.of_applications(admin.connection, live)
    except Error as error:
        raise _failure(error, live) from error


def _journal(admin: Administrator, live: str, *, other: str, kept: str, word: str) -> Journal:
    return Journal(admin.uid, live, other, kept, word, movable(admin, live))


def _carry_out(admin: Administrator, journal: Journal, like: dict[str, Any]) -> list[str]:
    connection, live = admin.connection, journal.live
    try:
        moving.settle_session(connection)
        journal.begin(connection)
        _lock_out(admin, journal)
        for database in (live, journal.kept, journal.side):
            if admin.mark(database) is None:
                admin.create(database, admin.properties(live) or like, _unfinished(journal))
        held = moving.read(connection, live), moving.read(connection, journal.other).woken(connection.dialect)
        journal = dataclasses.replace(journal, held=held)
        journal.note(connection)
        # Where nothing else is: the kept database of a restore, the side database of an undo.
        scratch = journal.side if journal.other == journal.kept else journal.kept
        moving.rehearse_triggers(connection, live, held[0].code, scratch)
        _move(admin, journal, held, back=False)
        told = _finish(admin, journal, held)
        _end(admin, journal, State.AFTER, State.DONE)
    except Error as error:
        raise _failure(error, live) from error
    return told


def _lock_out(admin: Administrator, journal: Journal) -> None:
    accounts.lock(admin.connection, journal.accounts)
    admin.end_sessions(sorted({account.user for account in journal.accounts}))


def _move(admin: Administrator, journal: Journal, held: Held, *, back: bool) -> None:
    """Let the tables change places, or go back, without what would run meanwhile or keep them there."""
    moving.drop_events(admin.connection, journal.live)
    _lock_out(admin, journal)  # an event that has begun is a session of its definer
    tables = {*held[0].tables, *held[1].tables}
    for database in dict.fromkeys((journal.live, journal.other, journal.kept)):
        moving.make_room(admin.connection, database, tables)
    _rename(admin, journal.moves(back=back))


def _rename(admin: Administrator, moves: list[tuple[str, str]]) -> None:
    admin.connection.run("RENAME TABLE " + ", ".join(f"{old} TO {new}" for old, new in moves))


def _finish(admin: Administrator, journal: Journal, held: Held) -> list[str]:
    """Let the code follow the tables, however often; return which views could not."""
    was_live, was_other = held
    _lend(admin, journal, held)
    lost = moving.put(admin.connection, journal.kept, was_live.parked(admin.connection.dialect))
    # Rights on routines are those of a name, like all others.
    told = moving.put(admin.connection, journal.live, was_other.with_grants_of(was_live))
    return [*told, *(f"{quoted(journal.kept)}: {text}" for text in lost)]


def _settle(admin: Administrator, state: State, journal: Journal) -> None:
    """Of a restore that has failed, and where it cannot be finished, the old contents are live in the end."""
    if state is State.AFTER and journal.held:
        if journal.uid == admin.uid and _finished(admin, journal, journal.held):
            _end(admin, journal, state, State.DONE)
            return
        _move(admin, journal, journal.held, back=True)
        state = State.BEFORE
    if state is State.BEFORE:
        if journal.held:
            _put_back(admin, journal, journal.held)
        _end(admin, journal, state, State.BACK)
        return
    _clear_away(admin, journal, state)


def _finished(admin: Administrator, journal: Journal, held: Held) -> bool:
    try:
        _finish(admin, journal, held)
    except (Failure, Error):
        return False
    return True


def _put_back(admin: Administrator, journal: Journal, held: Held) -> None:
    _lend(admin, journal, held)
    moving.put(admin.connection, journal.live, held[0])
    if journal.other != journal.side:  # that one is dropped
        moving.put(admin.connection, journal.other, held[1].parked(admin.connection.dialect))


def _lend(admin: Administrator, journal: Journal, held: Held) -> None:
    """Let the definers of views read what is kept: no view is created on one whose definer may not."""
    for account in _definers(admin, held):
        admin.give(journal.kept, account.sql)


def _definers(admin: Administrator, held: Held) -> list[Account]:
    return accounts.definers_of_views(admin.connection, [*held[0].code, *held[1].code])


def _end(admin: Administrator, journal: Journal, state: State, end: State) -> None:
    # From here on nothing is put anywhere any more: the applications work with what there is.
    _rename(admin, [journal.move(state, end)])
    _clear_away(admin, journal, end)


def _clear_away(admin: Administrator, journal: Journal, end: State) -> None:
    """Say how it ended, let everybody in, and drop what is not complete, the journal last."""
    if end is State.DONE and journal.word:
        _mark(admin, journal.kept, noted(journal.word, journal.uid))
    if end is State.DONE and admin.mark(journal.live) == _unfinished(journal):
        _mark(admin, journal.live, noted("restored", journal.uid))
    for account in _definers(admin, journal.held) if journal.held else ():
        admin.take(journal.kept, account.sql)
    accounts.unlock(admin.connection, journal.accounts)
    for database in (journal.live, journal.kept, journal.side):
        if admin.mark(database) == _unfinished(journal):
            admin.drop(database)
    admin.drop(journal.place)


def _mark(admin: Administrator, database: str, mark: str) -> None:
    found = admin.properties(database)
    assert found
    admin.note(database, found["comment"], mark)


def _unfinished(journal: Journal) -> str:
    return noted("restoring", journal.uid)


def _failure(error: Error, live: str) -> Failure:
    if failures.number(error) == _WAITED:
        message = (
            f"a session that is not of the accounts of {quoted(live)} holds a lock on one of its tables:"
            f" {failures.line(error)} (1205); end it or its transaction (SHOW PROCESSLIST, XA RECOVER)"
        )
        return Failure(Reason.LOAD_FAILED, message, retriable=True)
    return failures.of_error(error, Reason.LOAD_FAILED, "exchanging the databases", retriable=True)
