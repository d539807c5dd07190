"""The courier: carries news to the receivers of BackupNotifiers, beside the work queue.

One task per notifier and receiver, so that a receiver that is slow or down holds up nobody else. What came of
a delivery is kept in memory for the next look; when we die here, what was not recorded is delivered again.
Secrets are read for each delivery, with rights somebody gave for just these, and not kept.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tenant_backup.api import BackupNotifier
from tenant_backup.cluster import NOTIFIER, SECRET, Cluster, ClusterError, Rejected
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.names import digest, shortened
from tenant_backup.decisions.observed import Errand, Problem
from tenant_backup.decisions.plan import Deliver
from tenant_backup.decisions.verdicts import Ref

from . import delivery_http, delivery_mail
from .delivery_networks import Networks
from .delivery_problems import Undelivered, misconfigured

_log = logging.getLogger(__name__)
_NEVER = Errand(generation=0)
_Key = tuple[Ref, str, str]  # the notifier, its UID, and the receiver


@dataclass(frozen=True)
class Correspondence:
    """How receivers are reached: where none may be, and whom to give the right to read a Secret."""

    networks: Networks
    account: str = ""  # namespace:name of the operator's service account


class Courier:
    """One per operator; used from the event loop only. `wake` is called when a delivery has ended."""

    def __init__(self, cluster: Cluster, settings: Correspondence, wake: Callable[[Ref], None]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._wake = wake
        self._errands: dict[_Key, Errand] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def errands(self, notifier: BackupNotifier) -> Mapping[str, Errand]:
        """Return what became of the last delivery, by receiver."""
        uid = notifier.metadata.uid
        return {receiver: errand for (_, known, receiver), errand in self._errands.items() if known == uid}

    def send(self, action: Deliver) -> None:
        """Begin a delivery, unless one to this receiver is under way."""
        key = _key(action)
        before = self._errands.get(key, _NEVER)
        if key in self._errands and before.ended is None:
            return
        self._errands[key] = replace(before, ended=None, delivered=())
        task = asyncio.create_task(self._errand(action, before))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, notifier: Ref) -> None:
        """Forget a notifier that is gone."""
        for key in [key for key in self._errands if key[0] == notifier]:
            del self._errands[key]

    async def close(self) -> None:
        """Stop: what is under way is delivered again by the next operator."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _errand(self, action: Deliver, before: Errand) -> None:
        key, generation, delivered = _key(action), action.notifier.metadata.generation, list[str]()
        problem = await self._deliver(action, delivered)
        if problem is not None:
            _log.warning("%s: %s: %s", key[0], action.receiver, problem.message)
        if problem is None and not action.news and _of_the_receiver(before, generation):
            problem = before.problem  # that its Secrets can be read does not mean that it answers
        failures = before.failures + 1 if problem and not delivered else int(problem is not None)
        if key in self._errands:  # the notifier is still there
            ended = datetime.now(UTC)
            self._errands[key] = Errand(generation, ended, tuple(delivered), problem, failures)
            self._wake(key[0])

    async def _deliver(self, action: Deliver, delivered: list[str]) -> Problem | None:
        try:
            await self._to(action, delivered)
        except Undelivered as error:
            return error.problem
        except Exception as error:  # noqa: BLE001 - a bug must not leave the errand under way for ever
            # Only its type: the text of a library's exception may have the URL.
            _log.error("delivery failed: %s", type(error).__name__)
            return Problem(Reason.INTERNAL_ERROR, f"a defect of ours ({type(error).__name__}): report it")
        return None

    async def _to(self, action: Deliver, delivered: list[str]) -> None:
        spec, networks = action.notifier.spec, self._settings.networks
        if action.receiver == "Webhook" and spec.webhook:
            place = _place(spec.webhook.url_secret_ref.name, await self._secret(action, "url"), networks)
            signing = await self._secret(action, "signing")
            key = delivery_http.signing_key(spec.webhook.signing_secret_ref.name, signing.get("secret", ""))
            await delivery_http.post(place, key, action.news, action.source, delivered)
        elif action.receiver == "Heartbeat" and spec.heartbeat:
            name = spec.heartbeat.url_secret_ref.name
            place = _place(name, await self._secret(action, "heartbeat"), networks)
            await delivery_http.ping(place, action.news, delivered)
        elif action.receiver == "Email" and spec.email:
            secret = await self._secret(action, "smtp")
            server = delivery_mail.server(spec.email.smtp_secret_ref.name, secret)
            await delivery_mail.send(server, networks, spec.email, action.news, delivered)

    async def _secret(self, action: Deliver, which: str) -> Mapping[str, str]:
        namespace, name = action.notifier.metadata.namespace, secrets(action.notifier)[which]
        try:
            found = await self._cluster.get(SECRET, namespace, name)
        except Rejected as error:
            if error.status != 403:
                raise Undelivered(Problem(Reason.DELIVERY_FAILED, error.message)) from None
            raise Undelivered(self._not_allowed(action.notifier, name)) from None
        except ClusterError as error:
            raise Undelivered(Problem(Reason.DELIVERY_FAILED, f"API server: {error.message}")) from None
        if found is None:
            message = f"Secret {name} does not exist; create it, or correct the reference"
            raise Undelivered(Problem(Reason.SECRET_NOT_FOUND, message, needs_person=True))
        return _texts(name, found.get("data", {}))

    def _not_allowed(self, notifier: BackupNotifier, secret: str) -> Problem:
        metadata, account = notifier.metadata, self._settings.account or "NAMESPACE:SERVICEACCOUNT"
        found = sorted(set(secrets(notifier).values()))
        role = shortened("notifier", metadata.name, digest(*found), limit=200)  # other Secrets, another role
        names = " ".join(f"--resource-name={name}" for name in found)
        in_namespace = f"kubectl -n {metadata.namespace} create"
        message = (
            f"the operator may not read Secret {secret}; allow it what this notifier needs, and no more:"
            f" `{in_namespace} role {role} --verb=get --resource=secrets {names}"
            f" && {in_namespace} rolebinding {role} --role={role} --serviceaccount={account}`"
        )
        return Problem(Reason.PERMISSION_DENIED, message, needs_person=True)


def _key(action: Deliver) -> _Key:
    metadata = action.notifier.metadata
    return Ref(NOTIFIER.name, metadata.namespace, metadata.name), metadata.uid, action.receiver


def secrets(notifier: BackupNotifier) -> dict[str, str]:
    """Return the names of the Secrets a notifier needs, by what for."""
    spec, found = notifier.spec, dict[str, str]()
    if spec.webhook:
        found |= {"url": spec.webhook.url_secret_ref.name, "signing": spec.webhook.signing_secret_ref.name}
    if spec.email:
        found["smtp"] = spec.email.smtp_secret_ref.name
    if spec.heartbeat:
        found["heartbeat"] = spec.heartbeat.url_secret_ref.name
    return found


def _of_the_receiver(before: Errand, generation: int) -> bool:
    """Whether the last problem was the receiver's, with this spec."""
    return bool(
        before.problem and before.problem.reason is Reason.DELIVERY_FAILED and before.generation == generation
    )


def _place(name: str, secret: Mapping[str, str], networks: Networks) -> delivery_http.Place:
    return delivery_http.place(name, secret.get("url", ""), secret.get("ca.crt", ""), networks)


def _texts(name: str, data: Mapping[str, Any]) -> dict[str, str]:
    try:
        return {
            key: base64.b64decode(value, validate=True).decode().strip()
            for key, value in data.items()
            if value
        }
    except (binascii.Error, UnicodeDecodeError):
        raise misconfigured(f"Secret {name} has a value that is no text; correct it") from None
