"""The running operator: one connection, one queue, kopf's watches; stopped without cutting work off."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import kopf

from tenant_backup.cluster import OURS, Cluster, ClusterError, Unavailable
from tenant_backup.decisions.verdicts import Ref

from . import tenants
from .admission import Admission
from .delivery import Courier
from .dependents import Dependents
from .look import Look
from .metrics import known, serving
from .queue import WorkQueue
from .reconcile import UNAVAILABLE_PAUSE, Reconciler
from .roster import Roster
from .settings import Configuration, kopf_settings
from .watching import register

_log = logging.getLogger(__name__)
RELOAD_EVERY = 3600.0  # seconds
_SELDOM = (5_000, 10, 10)  # with Python's own, a third of a start among 10,000 objects is collecting


async def run(configuration: Configuration, connect: Callable[[], Awaitable[Cluster]]) -> None:
    """Run until SIGTERM or SIGINT.

    Raises ClusterError when the cluster does not know our kinds, CannotServe when the port is taken.
    """
    cluster = await connect()
    try:
        await _kinds_are_served(cluster, configuration)
        await _watch(configuration, cluster)
    finally:
        await cluster.close()


async def _kinds_are_served(cluster: Cluster, configuration: Configuration) -> None:
    # Without dynamic scanning kopf would quietly watch nothing; a restart a little later finds the CRDs.
    namespace = configuration.namespaces[0] if configuration.namespaces else ""
    for kind in OURS.values():
        try:
            await cluster.list(kind, namespace, fields="metadata.name=none")
        except Unavailable as error:
            _log.warning("API server unavailable at start: %s", error)  # kopf waits for it
        except ClusterError as error:
            raise ClusterError(
                f"cannot list {kind.plural}; are the CRDs and the roles installed? {error}"
            ) from error


async def _watch(configuration: Configuration, cluster: Cluster) -> None:
    gc.set_threshold(*_SELDOM)
    dependents, roster = Dependents(), Roster()

    def wake(ref: Ref) -> None:
        queue.add(ref)  # which is made below, of all of these

    admission = Admission(roster, configuration.budget, wake)
    courier = Courier(cluster, configuration.correspondence, wake)
    await _know_all(roster, cluster, configuration)
    gc.freeze()  # what is known stays
    await _until_available(lambda: admission.load(cluster, configuration.namespaces))
    look = Look(
        cluster,
        roster,
        admission,
        courier,
        trusts_requested_by=configuration.trusts_requested_by,
        collection=configuration.collection,
    )
    queue: WorkQueue[Ref] = WorkQueue(Reconciler(cluster, look, configuration.runner, dependents))
    registry = kopf.OperatorRegistry()
    register(registry, queue, dependents, roster, admission, rest=partial(tenants.rest, look))
    _log_in(registry)

    @kopf.on.cleanup(registry=registry, id="finish-work")
    async def finish_work(**_: Any) -> None:
        await queue.close()
        await courier.close()

    queue.start()
    keep_true = asyncio.create_task(_reload(roster, admission, cluster, configuration))
    try:
        async with serving(configuration.metrics, lambda: known(roster, queue)):
            await kopf.operator(
                registry=registry,
                settings=kopf_settings(),
                clusterwide=not configuration.namespaces,
                namespaces=configuration.namespaces,
                liveness_endpoint=configuration.liveness or None,
                standalone=True,
            )
    finally:
        keep_true.cancel()


async def _know_all(roster: Roster, cluster: Cluster, configuration: Configuration) -> None:
    """Load the roster, however long the API server takes to be there."""
    await _until_available(lambda: roster.load(cluster, configuration.namespaces))


async def _until_available(read: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await read()
            return
        except Unavailable as error:
            _log.warning("API server unavailable: %s", error)
            await asyncio.sleep(UNAVAILABLE_PAUSE)


async def _reload(
    roster: Roster, admission: Admission, cluster: Cluster, configuration: Configuration
) -> None:
    while True:
        await asyncio.sleep(RELOAD_EVERY)
        try:
            await _know_all(roster, cluster, configuration)
            admission.advance()  # of a run whose end no watch told
        except ClusterError as error:  # it is as true as the watches make it; the next hour tries again
            _log.warning("cannot list all objects: %s", error)


def _log_in(registry: kopf.OperatorRegistry) -> None:
    @kopf.on.login(registry=registry, id="service-account-or-kubeconfig")
    async def log_in(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
