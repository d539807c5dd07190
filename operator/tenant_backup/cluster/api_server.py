"""`Cluster` over HTTP, on the asynchronous client of the official Kubernetes package.

Only its transport and its credentials are used, with paths made here: the generated models and
the discovery of the dynamic client would cost memory and round trips for kinds we know by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from tenant_backup.telemetry.counters import API_REQUESTS

from . import (
    LOG_LIMIT,
    POD,
    AlreadyExists,
    ClusterError,
    Conflict,
    Gone,
    Kind,
    Lines,
    Object,
    Objects,
    Rejected,
    Unavailable,
)

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)  # seconds
PAGE = 500  # objects per list request
MERGE_PATCH = "application/merge-patch+json"
Query = list[tuple[str, str]]
_AGENT = "tenant-backup-operator"


class ApiServer:
    """The real API server. One per process; make it inside the running event loop."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._client.user_agent = _AGENT

    @classmethod
    async def connect(cls) -> ApiServer:
        """Connect as a pod's service account, or as the kubeconfig says.

        Raises kubernetes.aio.config.ConfigException when there is neither.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = 32
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(ApiClient(configuration))

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object, or None when there is none."""
        try:
            return _slim(await self._json("GET", kind.path(namespace, name)))
        except Gone:
            return None

    async def list(self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "") -> Objects:
        """Return the objects that match both selectors, read page by page."""
        return [item async for item in self.pages(kind, namespace, labels=labels, fields=fields)]

    async def pages(
        self, kind: Kind, namespace: str, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Object]:
        """Yield the objects that match both selectors one by one, a page of them in memory at a time."""
        query = [("limit", str(PAGE))]
        query += [("labelSelector", labels)] if labels else []
        query += [("fieldSelector", fields)] if fields else []
        more = ""
        while True:
            continued = [("continue", more)] if more else []
            page = await self._json("GET", kind.path(namespace), query + continued)
            for item in page["items"]:
                yield _slim(item)
            more = page["metadata"].get("continue", "")
            if not more:
                return

    async def create(self, kind: Kind, body: Object, *, dry_run: bool = False) -> Object:
        """Create the object; its metadata says where. Raises AlreadyExists."""
        document = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        query = [("dryRun", "All")] if dry_run else []
        path = kind.path(body["metadata"].get("namespace", ""))
        return _slim(await self._json("POST", path, query, document))

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Apply a merge patch. With metadata.resourceVersion in it, raises Conflict when outdated."""
        return _slim(await self._json("PATCH", kind.path(namespace, name), [], body, MERGE_PATCH))

    async def patch_status(self, kind: Kind, target: Object, status: Object) -> Object:
        """Apply a merge patch to the status of `target` as it was read. Raises Conflict."""
        metadata = target["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        # The UID too: a deleted and re-created object must not inherit a status.
        guard = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        return _slim(await self._json("PATCH", path, [], {"metadata": guard, "status": status}, MERGE_PATCH))

    async def delete(  # noqa: PLR0913 - what, which one, and how
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        version: str = "",
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        """Delete the object with that UID, and version if one is given; no error when it is gone already."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, **({"resourceVersion": version} if version else {})},
            "propagationPolicy": propagation,
        }
        try:
            await self._json("DELETE", kind.path(namespace, name), [], options)
        except (Gone, Conflict):
            return  # gone, or another object took its name, or it is not the version that was meant

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> Lines:
        """Return the last lines a container wrote; empty when it has not started."""
        return await self._log(
            namespace, pod, container, [("tailLines", str(lines)), ("limitBytes", "65536")]
        )

    async def log(self, namespace: str, pod: str, container: str) -> Lines:
        """Return what a container wrote, at most LOG_LIMIT bytes; empty when there is nothing to read."""
        return await self._log(namespace, pod, container, [("limitBytes", str(LOG_LIMIT))])

    async def _log(self, namespace: str, pod: str, container: str, query: Query) -> Lines:
        query = [("container", container), *query]
        try:
            text = await self._send("GET", POD.path(namespace, pod, "log"), query)
        except (Gone, Rejected):
            return []
        return text.decode(errors="replace").splitlines()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _json(self, *request: Any) -> Object:
        return dict(json.loads(await self._send(*request)))

    async def _send(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            request = await self._client.param_serialize(
                method,
                quote(path),
                query_params=query or [],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=REQUEST_TIMEOUT)
            text = bytes(await response.response.read())
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            API_REQUESTS.labels(method, "error").inc()
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        API_REQUESTS.labels(method, str(response.status)).inc()
        if response.status >= 300:
            raise _error(response.status, text)
        return text


def _error(status: int, text: bytes) -> ClusterError:
    try:
        document = json.loads(text)
        message, reason = str(document.get("message", "")), document.get("reason", "")
    except (ValueError, AttributeError):
        message, reason = text.decode(errors="replace")[:200], ""
    if status == 429 or status >= 500:
        return Unavailable(message, status)
    if status == 409:
        return AlreadyExists(message, status) if reason == "AlreadyExists" else Conflict(message, status)
    return Gone(message, status) if status in (404, 410) else Rejected(message, status)


def _slim(document: Object) -> Object:
    """Drop what nobody here reads and what can be half of an object's size."""
    document.get("metadata", {}).pop("managedFields", None)
    return document
