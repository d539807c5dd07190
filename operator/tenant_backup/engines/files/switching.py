"""After a Replace of files: put back what was there before, or delete it."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract.job import Swap, Volume
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.handles import handle

from .exchange import DONE, UNDO, Exchange, Journal, Paths
from .ground import Ground, working_on
from .placing import settle_others


def carry_out(job: Swap, volume: Volume) -> dict[str, Any]:
    """Carry out the action on a volume, however often; return {action}. Raises Failure."""
    mine = handle(job.uid)
    with working_on(volume) as ground:
        settle_others(ground, mine)
        _undo(ground, mine) if job.action == "Undo" else _drop(ground, mine)
    return {"action": job.action}


def _undo(ground: Ground, mine: str) -> None:
    """What the restore put in place is kept from now on, as `{h}.undone`. A second call does nothing."""
    exchange = Exchange.found(ground, mine, UNDO)
    if exchange is None:
        there = ground.there()
        if mine + UNDO.aside in there and mine + UNDO.source not in there:
            return
        exchange = _begin(ground, mine)
    exchange.or_take_back()
    ground.remove(mine + UNDO.source)  # nothing is left in it
    exchange.end()


def _begin(ground: Ground, mine: str) -> Exchange:
    restored = ground.read(mine + DONE)
    if restored is None or mine + UNDO.source not in ground.there():
        message = (
            f"volume {ground.volume.name} (claim {ground.volume.claim}) does not keep what this restore"
            " replaced; restore a backup"
        )
        raise Failure(Reason.FILES_NOT_FOUND, message)
    journal = Journal.of_text(restored)
    leaving = ground.top() if journal.whole else list(journal.coming)
    return Exchange.begin(ground, mine, UNDO, Paths(list(journal.leaving), leaving, journal.whole))


def _drop(ground: Ground, mine: str) -> None:
    """Delete what is kept; an undo that was begun and not ended is taken back first."""
    if begun := Exchange.found(ground, mine, UNDO):
        begun.take_back()
    for name in sorted(ground.there()):
        if name.startswith(f"{mine}.") and name != mine + DONE:
            ground.remove(name)
    ground.unlink(mine + DONE)  # the last: until then it is known whose all of it is
