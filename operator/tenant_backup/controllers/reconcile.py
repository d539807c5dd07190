"""One function from a key to a settled object: observe, decide, carry out, and what to do about errors."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tenant_backup.cluster import (
    BACKUP,
    NOTIFIER,
    OURS,
    RESTORE,
    SCHEDULE,
    STORE,
    TENANT,
    Cluster,
    Conflict,
    Gone,
    Kind,
    Object,
    Rejected,
    Unavailable,
)
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import backup, notifications, restore, schedule, store, tenant
from tenant_backup.decisions.blocked import blocked
from tenant_backup.decisions.conditions import Headline
from tenant_backup.decisions.plan import Plan
from tenant_backup.decisions.verdicts import Ref, Stalled, Verdict, Waiting
from tenant_backup.jobs.manifest import Runner
from tenant_backup.telemetry.counters import ERRORS, RECONCILE_SECONDS, RECONCILES

from . import backups, notifiers, restores, schedules, stores, tenants
from .carry_out import CarryOut, ForeignObject
from .dependents import Dependents
from .look import Look

_log = logging.getLogger(__name__)
CONFLICT_PAUSE = 0.1  # seconds
REFUSED_PAUSE = 20.0
UNAVAILABLE_PAUSE = 3.0


@dataclass(frozen=True)
class Controller:
    """How one kind is looked at and thought about."""

    kind: Kind
    headline: Headline
    observe: Callable[[Look, Object, datetime], Awaitable[Any]]
    decide: Callable[[Any, datetime], Plan]


CONTROLLERS = {
    controller.kind.name: controller
    for controller in (
        Controller(TENANT, "Ready", tenants.observe, tenant.decide),
        Controller(STORE, "Ready", stores.observe, store.decide),
        Controller(BACKUP, "Succeeded", backups.observe, backup.decide),
        Controller(RESTORE, "Succeeded", restores.observe, restore.decide),
        Controller(SCHEDULE, "Ready", schedules.observe, schedule.decide),
        Controller(NOTIFIER, "Ready", notifiers.observe, notifications.decide),
    )
}


class Reconciler:
    """Brings one object at a time to where its spec wants it. Safe to call for different keys at once."""

    def __init__(self, cluster: Cluster, look: Look, runner: Runner, dependents: Dependents) -> None:
        self._cluster = cluster
        self._look = look
        self._runner = runner
        self._dependents = dependents
        self._restores: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        for kind in CONTROLLERS:
            ERRORS.labels(kind, Reason.INTERNAL_ERROR)  # 0: an alert on an increase needs where it began

    async def __call__(self, key: Ref) -> float | None:
        """Return in how many seconds to look again, or None."""
        async with self._turn(key):
            with RECONCILE_SECONDS.labels(key.kind).time():
                result, again = await self._settle(key)
        RECONCILES.labels(key.kind, result).inc()
        return again

    async def _settle(self, key: Ref) -> tuple[str, float | None]:
        """Return how it went, as metrics call it, and in how many seconds to look again."""
        try:
            return "settled", await self._reconcile(key)
        except (Conflict, Gone):
            return "conflict", CONFLICT_PAUSE  # somebody was faster: look again
        except Unavailable as error:
            _log.warning("API server unavailable while working on %s: %s", key, error)
            return "unavailable", UNAVAILABLE_PAUSE
        except Exception:
            ERRORS.labels(key.kind, Reason.INTERNAL_ERROR).inc()  # a bug: the queue says more
            raise

    def _turn(self, key: Ref) -> AbstractAsyncContextManager[Any]:
        """Two restores must not both see that nobody else restores."""
        return self._restores[key.namespace] if key.kind == RESTORE.name else nullcontext()

    async def _reconcile(self, key: Ref) -> float | None:
        controller, now = CONTROLLERS[key.kind], self._look.now()
        document = await self._cluster.get(OURS[key.kind], key.namespace, key.name)
        if document is None:
            self._dependents.wait(key, ())
            self._look.courier.forget(key)
            return None
        carry_out = CarryOut(self._cluster, self._runner, self._look, controller.kind, document)
        try:
            plan = controller.decide(await controller.observe(self._look, document, now), now)
            self._dependents.wait(key, plan.wait_for)
            await carry_out(plan)
        except (Conflict, Gone, Unavailable):
            raise
        except (ValidationError, Rejected, ForeignObject) as error:
            await self._give_place_back(controller, document, now)
            verdict = _verdict(error)
            _log.warning("%s: %s: %s", key, verdict.reason, verdict.message)
            ERRORS.labels(key.kind, verdict.reason).inc()
            await self._say(controller, document, verdict, now)
            return verdict.retry_in
        except Exception:
            await self._give_place_back(controller, document, now)
            raise
        return plan.retry_in

    async def _give_place_back(self, controller: Controller, document: Object, now: datetime) -> None:
        """What could not start must not keep others from starting; what may run all the same does."""
        namespace, uid = document["metadata"]["namespace"], document["metadata"]["uid"]
        if controller.kind is BACKUP and not await self._look.jobs(namespace, uid, now):
            self._look.admission.leave(uid)

    async def _say(self, controller: Controller, seen: Object, verdict: Verdict, now: datetime) -> None:
        """Write why nothing moves, on the object as it is now: part of a plan may have changed it."""
        metadata = seen["metadata"]
        document = await self._cluster.get(controller.kind, metadata["namespace"], metadata["name"])
        if document is None:
            return
        generation, status = document["metadata"]["generation"], document.get("status", {})
        said = blocked(controller.headline, verdict, status, generation, now)
        carry_out = CarryOut(self._cluster, self._runner, self._look, controller.kind, document)
        await carry_out.write(said)


def _verdict(error: ValidationError | Rejected | ForeignObject) -> Verdict:
    if isinstance(error, ForeignObject):
        return Stalled(Reason.FOREIGN_OBJECT, str(error), REFUSED_PAUSE)
    if isinstance(error, Rejected):
        reason = Reason.PERMISSION_DENIED if error.status == 403 else Reason.INTERNAL_ERROR
        return Waiting(reason, f"the API server refuses: {error.message}", REFUSED_PAUSE)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Stalled(Reason.INVALID_SPEC, f"{where}: {first['msg']}; correct the object", None)
