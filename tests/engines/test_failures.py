"""What servers and client programs say, as reasons: by SQLSTATE, by words only where there is none."""

from __future__ import annotations

import psycopg
import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.engines.postgresql import failures


@pytest.mark.parametrize(
    "said",
    [
        "COPY data transfer failed: could not receive data from server: Connection timed out",
        "psql: error: connection to server was lost",
        "server closed the connection unexpectedly",
        "could not send data to server: Broken pipe",
    ],
)
def test_a_server_that_vanishes_in_mid_work_is_unreachable_and_tried_again(said: str) -> None:
    """It may be back for the next attempt."""
    failure = failures.of_text(said, Reason.DUMP_FAILED, "reading public.note")
    assert (failure.reason, failure.retriable) == (Reason.DATABASE_UNREACHABLE, True)
    assert said in failure.message


STATES = {
    ("08006", "57P01", "57P02", "57P03", "57P05", "53300", "25P03", "25P04"): (
        Reason.DATABASE_UNREACHABLE,
        True,
    ),
    ("08P01",): (Reason.DATABASE_UNREACHABLE, False),
    ("28000", "28P01"): (Reason.AUTHENTICATION_FAILED, False),
    ("3D000", "57P04"): (Reason.DATABASE_NOT_FOUND, False),
    ("42501",): (Reason.PERMISSION_DENIED, False),
    ("40001", "40P01", "53200", "55006", "55P03", "57014", "58030"): (Reason.LOAD_FAILED, True),
    ("22021", "22P02", "23505", "25006", "53100", "53400", "54000", "P0001", "XX001", "XX002"): (
        Reason.LOAD_FAILED,
        False,
    ),
}


@pytest.mark.parametrize(("state", "known"), [(one, known) for some, known in STATES.items() for one in some])
@pytest.mark.parametrize("callers", [True, False])
@pytest.mark.parametrize("severity", ["ERROR", "FEHLER", "错误"])
def test_a_sqlstate_says_the_same_in_every_language(
    state: str, known: tuple[Reason, bool], severity: str, *, callers: bool
) -> None:
    """Of a statement of ours and of one that psql ran, whatever the caller thinks of retrying."""
    said = f"psql:<stdin>:3: {severity}:  {state}: words\nLOCATION:  f, c.c:1"
    told = failures.of_text(said, Reason.LOAD_FAILED, "loading", retriable=callers)
    error = psycopg.errors.lookup(state)("words")
    caught = failures.of_error(error, Reason.LOAD_FAILED, "loading", retriable=callers)
    assert (told.reason, told.retriable) == (caught.reason, caught.retriable) == known
    assert told.message == caught.message
    assert told.message.startswith("loading: words; ")


@pytest.mark.parametrize("callers", [True, False])
def test_a_state_that_says_no_more_than_its_line_leaves_the_reason_to_the_caller(*, callers: bool) -> None:
    """Also whether it may heal."""
    failure = failures.of_text("ERROR:  42P01: words", Reason.DUMP_FAILED, "dumping", retriable=callers)
    assert (failure.reason, failure.retriable, failure.message) == (
        Reason.DUMP_FAILED,
        callers,
        "dumping: words",
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('connection to server at "x" failed: FATAL:  role "x" does not exist', Reason.AUTHENTICATION_FAILED),
        ('pg_restore: error: could not execute query: ERROR:  role "x" does not exist', Reason.LOAD_FAILED),
        (
            'connection to server at "x" failed: FATAL:  database "x" does not exist',
            Reason.DATABASE_NOT_FOUND,
        ),
        (
            'pg_restore: error: could not execute query: ERROR:  database "x" does not exist',
            Reason.LOAD_FAILED,
        ),
        ("server requires OAuth authentication", Reason.AUTHENTICATION_FAILED),
        ("ERROR:  canceling statement due to conflict with recovery", Reason.LOAD_FAILED),
        ("FATAL:  the database system is not accepting connections", Reason.DATABASE_UNREACHABLE),
    ],
)
def test_the_same_words_mean_another_thing_in_a_statement(said: str, reason: Reason) -> None:
    """A role that a policy names is not the one that connects."""
    assert failures.of_text(said, Reason.LOAD_FAILED, "restoring").reason is reason
