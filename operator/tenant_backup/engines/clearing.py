"""What a restore does around building a database: nothing half-built stays, whoever dies when."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tenant_backup.contract.reasons import Failure


@contextlib.contextmanager
def cleared(clear: Callable[[], None], finish: Callable[[], None], error: type[Exception]) -> Iterator[None]:
    """Start without what a killed attempt left, and leave nothing behind when this one fails.

    `finish` follows on success. Both raise Failure, or `error` of the engine's driver.
    """
    clear()
    try:
        yield
    except BaseException:
        _clear_at_the_end(clear, error)
        raise
    finish()


def _clear_at_the_end(clear: Callable[[], None], error: type[Exception]) -> None:
    """Clear as well as it goes: the next attempt does it again, and the first error is the one to tell."""
    for _ in range(2):
        try:
            clear()
        except KeyboardInterrupt:
            # All are told to stop, once; a peer that obeyed first may be why we are here.
            continue
        except (Failure, error):
            pass
        return
