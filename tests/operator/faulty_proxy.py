"""A reverse proxy before the API server that breaks requests on purpose, always the same ones."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import aiohttp
from aiohttp import web

from tests.operator.control_plane import Api

Fault = Literal["", "500", "429", "409", "lost answer", "cut"]
Plan = Callable[[int, web.Request], Fault]  # (number of the request, request) -> what goes wrong
CUT_AFTER = 1.0  # seconds a watch lives when it is cut


class _Proxy:
    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._plan = plan
        self._numbers = itertools.count(1)
        self.faults = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._plan(next(self._numbers), request)
        self.faults += bool(fault)
        if fault in ("500", "429", "409"):
            return _refusal(int(fault))
        context = ssl.create_default_context(cafile=str(self._api.folder / "ca.crt"))
        body = await request.read()
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                self._api.url + request.path_qs,
                data=body or None,
                headers={key: value for key, value in request.headers.items() if key.lower() != "host"},
                ssl=context,
            ) as answer,
        ):
            return await self._pass_on(request, answer, fault)

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault
    ) -> web.StreamResponse:
        if fault == "lost answer":
            await answer.read()  # the API server has done it
            assert request.transport
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(status=answer.status)
        for header in ("Content-Type", "Content-Encoding"):
            if header in answer.headers:
                response.headers[header] = answer.headers[header]
        await response.prepare(request)
        try:
            async with asyncio.timeout(CUT_AFTER if fault == "cut" else None):
                async for block in answer.content.iter_any():
                    await response.write(block)
        except TimeoutError:
            assert request.transport
            request.transport.abort()
        return response


def _refusal(status: int) -> web.Response:
    reason = {500: "InternalError", 429: "TooManyRequests", 409: "Conflict"}[status]
    document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
    return web.json_response(document | {"message": "injected by the test"}, status=status)


@contextmanager
def faulty(api: Api, plan: Plan) -> Iterator[_Proxy]:
    """Run a proxy; while it runs, operators started with `api.kubeconfig` go through it."""
    proxy, started = _Proxy(api, plan), threading.Event()
    port, stop = 0, asyncio.Event()
    loop: asyncio.AbstractEventLoop | None = None

    async def serve() -> None:
        nonlocal port, loop
        loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    started.wait()
    direct = api.kubeconfig.read_text()
    document = json.loads(direct)
    document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
    api.kubeconfig.write_text(json.dumps(document))
    try:
        yield proxy
    finally:
        api.kubeconfig.write_text(direct)
        assert loop
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
