"""Serving `/metrics`: the text is made in a thread, so that a large fleet does not hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from tenant_backup.decisions.verdicts import Ref
from tenant_backup.telemetry.figures import Known
from tenant_backup.telemetry.metrics import CONTENT_TYPE, exposition

from .queue import WorkQueue
from .roster import Roster


class CannotServe(Exception):
    """The address for metrics cannot be listened on."""


def known(roster: Roster, queue: WorkQueue[Ref]) -> Known:
    """Return what the operator knows now; call inside the event loop."""
    return Known(
        tenants=roster.tenants(),
        stores=roster.stores(),
        schedules=roster.schedules(),
        backups=roster.backups(),
        keys=queue.counts(),
    )


@asynccontextmanager
async def serving(url: str, know: Callable[[], Known]) -> AsyncIterator[None]:
    """Serve what `know` returns at `url`, such as http://0.0.0.0:8081/metrics; nothing when it is empty.

    Raises CannotServe.
    """
    if not url:
        yield
        return
    address = urlsplit(url)
    runner = _application(address.path, know)
    await runner.setup()
    try:
        await _listen(runner, url, address.hostname, address.port)
        yield
    finally:
        await runner.cleanup()


def _application(path: str, know: Callable[[], Known]) -> web.AppRunner:
    one_at_a_time = asyncio.Lock()  # scrapers that come together share neither memory nor the processor

    async def metrics(_request: web.Request) -> web.Response:
        async with one_at_a_time:
            text = await asyncio.to_thread(exposition, know())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.router.add_get(path, metrics)
    return web.AppRunner(application, access_log=None, handle_signals=False)


async def _listen(runner: web.AppRunner, url: str, host: str | None, port: int | None) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise CannotServe(f"cannot serve metrics at {url}: {error}; correct TENANT_BACKUP_METRICS") from error
