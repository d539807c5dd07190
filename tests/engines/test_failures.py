"""The words of client programs that have no SQLSTATE."""

from __future__ import annotations

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
