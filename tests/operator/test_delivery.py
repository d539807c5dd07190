"""The courier against real receivers: what arrives, what is signed, and what is said when nothing does."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tenant_backup.api import BackupNotifier
from tenant_backup.cluster import Kind, Object, Rejected
from tenant_backup.contract.reasons import Reason
from tenant_backup.controllers import delivery_http, delivery_mail
from tenant_backup.controllers.delivery import Correspondence, Courier
from tenant_backup.controllers.delivery_mail import mail
from tenant_backup.controllers.delivery_networks import REFUSED, Networks
from tenant_backup.decisions.news import News
from tenant_backup.decisions.observed import Errand, Problem
from tenant_backup.decisions.plan import Deliver

from .receivers import PASSWORD, SIGNING, USERNAME, Authority, Mailbox, smtp, web

OPS = {"name": "ops"}
SPEC: dict[str, Any] = {
    "events": ["BackupFailed"],
    "webhook": {"urlSecretRef": OPS, "signingSecretRef": OPS},
    "email": {
        "smtpSecretRef": OPS,
        "from": "backup@example.org",
        "to": ["ops@example.org", "ann@example.org"],
    },
    "heartbeat": {"urlSecretRef": OPS},
}
ANYWHERE = Networks(())
SOURCE = "/tenantbackup.dev/clusters/c1"


def news(count: int, **data: Any) -> tuple[News, ...]:
    """Failed backups, one a second."""
    first = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    known = {"reason": "DumpFailed", "message": "no space left", "requestedBy": "ann", **data}
    return tuple(
        News(
            "BackupFailed",
            first + timedelta(seconds=n),
            "TenantBackup",
            "backups",
            f"acme-{n}",
            f"uid-{n}",
            "acme",
            known,
        )
        for n in range(count)
    )


class Secrets:
    """The only thing a courier asks a cluster for."""

    def __init__(self, **values: str) -> None:
        self._values = values

    async def get(self, _kind: Kind, _namespace: str, name: str) -> Object | None:
        """Return Secret ops; another one nobody may read, and none of a third name is there."""
        if name == "forbidden":
            raise Rejected('secrets "forbidden" is forbidden', 403)
        if name != "ops":
            return None
        data = {key.replace("ca_crt", "ca.crt"): value for key, value in self._values.items()}
        return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def deliver(
    secrets: Secrets,
    receiver: Any,
    what: tuple[News, ...],
    networks: Networks = ANYWHERE,
    spec: dict[str, Any] = SPEC,
) -> Errand:
    """Have a courier do one errand, and return what came of it."""
    metadata = {"name": "ops", "namespace": "backups", "uid": "u", "generation": 1}
    notifier = BackupNotifier.model_validate({"metadata": metadata, "spec": spec})

    async def errand() -> Errand:
        back = asyncio.Event()
        courier = Courier(secrets, Correspondence(networks, "system:operator"), lambda _: back.set())  # type: ignore[arg-type]
        courier.send(Deliver(notifier, receiver, what, SOURCE))
        await asyncio.wait_for(back.wait(), 60)
        return courier.errands(notifier)[receiver]

    return asyncio.run(errand())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the receivers' certificates."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is long enough on loopback."""
    monkeypatch.setattr(delivery_http, "REQUEST", aiohttp.ClientTimeout(total=1))


# webhook


def test_a_webhook_gets_signed_cloud_events_in_order() -> None:
    """The receiver checks the signature of every one of them."""
    with web() as receiver:
        errand = deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", news(3))
    assert errand.problem is None
    assert list(errand.delivered) == receiver.ids == [one.id for one in news(3)]
    assert receiver.forged == 0
    assert receiver.accepted[0] == {
        "specversion": "1.0",
        "id": news(1)[0].id,
        "source": SOURCE,
        "type": "dev.tenantbackup.BackupFailed",
        "subject": "TenantBackup/backups/acme-0",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "data": {
            "event": "BackupFailed",
            "kind": "TenantBackup",
            "namespace": "backups",
            "name": "acme-0",
            "uid": "uid-0",
            "tenant": "acme",
            "reason": "DumpFailed",
            "message": "no space left",
            "requestedBy": "ann",
        },
    }


def test_another_key_makes_another_signature() -> None:
    """So the receiver of these tests does look."""
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    with web() as receiver:
        errand = deliver(Secrets(url=receiver.url, secret=other), "Webhook", news(1))
    assert receiver.forged == 1
    assert errand.problem == Problem(Reason.DELIVERY_FAILED, "answered 401")


def test_nothing_to_tell_sends_nothing_and_looks_at_the_secrets() -> None:
    with web() as receiver:
        assert deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", ()).problem is None
        assert deliver(Secrets(url=receiver.url, secret="weak"), "Webhook", ()).problem is not None
    assert receiver.asked == 0


def test_what_came_before_an_error_is_delivered_and_what_comes_after_waits() -> None:
    """In time order: nothing overtakes what was refused."""
    with web() as receiver:
        receiver.manner = lambda n: 500 if n == 2 else 200
        errand = deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", news(5))
    assert errand.delivered == tuple(one.id for one in news(2))
    assert errand.problem == Problem(Reason.DELIVERY_FAILED, "answered 500")


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("silent", "no answer in time"),
        ("close", "the connection was closed without an answer"),
        ("redirect", "answered 302: redirects are not followed; put the final URL into the Secret"),
    ],
)
def test_a_receiver_that_misbehaves_is_told_in_one_sentence(impatient: None, manner: Any, said: str) -> None:
    with web() as receiver:
        receiver.manner = lambda _: manner
        errand = deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", news(1))
    assert errand.problem == Problem(Reason.DELIVERY_FAILED, said)
    assert receiver.asked == 1


def test_a_slow_receiver_gets_everything(impatient: None) -> None:
    """Each answer has its own time."""
    with web() as receiver:
        receiver.manner = lambda _: "slow"
        errand = deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", news(4))
    assert (len(errand.delivered), errand.problem) == (4, None)


def test_a_batch_ends_in_time_so_that_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a crash would repeat minutes of a slow receiver's work."""
    monkeypatch.setattr(delivery_http, "BATCH", 0.5)
    with web() as receiver:
        receiver.manner = lambda _: "slow"
        errand = deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", news(9))
    assert 1 < len(errand.delivered) < 9
    assert errand.problem is None


def test_a_receiver_nobody_answers_for_holds_up_no_other(impatient: None) -> None:
    """The courier works beside the queue, with a task for each receiver."""

    async def both(silent: str, good: str) -> float:
        metadata = {"name": "ops", "namespace": "backups", "generation": 1}
        done: dict[str, asyncio.Event] = {}
        began = time.monotonic()
        for uid, url in (("a", silent), ("b", good)):
            done[uid] = asyncio.Event()
            notifier = BackupNotifier.model_validate({"metadata": {**metadata, "uid": uid}, "spec": SPEC})
            cluster: Any = Secrets(url=url, secret=SIGNING)
            wake = done[uid]
            Courier(cluster, Correspondence(ANYWHERE), lambda _, wake=wake: wake.set()).send(
                Deliver(notifier, "Webhook", news(1), SOURCE)
            )
        await done["b"].wait()
        took = time.monotonic() - began
        assert not done["a"].is_set()
        await done["a"].wait()
        return took

    with web() as silent, web() as good:
        silent.manner = lambda _: "silent"
        assert asyncio.run(both(silent.url, good.url)) < 1


def test_a_private_authority_is_believed_only_when_the_secret_names_it(authority: Authority) -> None:
    with web(tls=authority.server()) as receiver:
        trusted = deliver(Secrets(url=receiver.url, secret=SIGNING, ca_crt=authority.pem), "Webhook", news(1))
        unknown = deliver(Secrets(url=receiver.url, secret=SIGNING), "Webhook", news(1))
    assert trusted.problem is None
    assert unknown.problem is not None
    assert "its certificate is not trusted" in unknown.problem.message
    assert len(receiver.accepted) == 1


def test_a_certificate_for_another_name_is_not_trusted(authority: Authority) -> None:
    with web(tls=authority.server("elsewhere")) as receiver:
        errand = deliver(Secrets(url=receiver.url, secret=SIGNING, ca_crt=authority.pem), "Webhook", news(1))
    assert errand.problem is not None
    assert "Hostname mismatch" in errand.problem.message
    assert receiver.accepted == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_no_receiver_may_be_where_only_the_operator_can_reach(host: str) -> None:
    """However its address is written: what is connected to is looked at."""
    with web() as receiver:
        url = receiver.url.replace("localhost", host)
        errand = deliver(Secrets(url=url, secret=SIGNING), "Webhook", news(1), Networks.parse(REFUSED))
    assert receiver.asked == receiver.forged == 0
    assert errand.problem is not None
    assert "in a network where no receiver may be" in errand.problem.message


def test_neither_url_nor_secret_is_ever_told(caplog: pytest.LogCaptureFixture) -> None:
    """Not in the problem, and not in the log."""
    caplog.set_level(logging.DEBUG)
    problems = []
    for url in ("http://localhost:9/secret-path", "ftp://localhost/secret-path", "http://:0/secret-path"):
        errand = deliver(Secrets(url=url, secret=SIGNING), "Webhook", news(1))
        assert errand.problem is not None
        problems.append(errand.problem.message)
    told = "\n".join([*problems, caplog.text])
    assert "secret-path" not in told
    assert SIGNING not in told


# Secrets


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "http://x", "secret": "hunter2"}, "whsec_"),
        ({"url": "http://x", "secret": "whsec_c2hvcnQ="}, "24 to 64 random bytes"),
        ({"secret": SIGNING}, "key url of Secret ops"),
        ({"url": "https://x", "secret": SIGNING, "ca_crt": "nonsense"}, "key ca.crt of Secret ops"),
    ],
)
def test_a_secret_that_cannot_work_stalls_and_says_how(values: dict[str, str], said: str) -> None:
    problem = deliver(Secrets(**values), "Webhook", news(1)).problem
    assert problem is not None
    assert (problem.reason, problem.needs_person) == (Reason.INVALID_SPEC, True)
    assert said in problem.message


def test_a_secret_that_may_not_be_read_says_the_command_that_allows_it() -> None:
    """All Secrets of the notifier, and no other."""
    spec = {
        "events": ["BackupFailed"],
        "webhook": {"urlSecretRef": {"name": "forbidden"}, "signingSecretRef": OPS},
    }
    problem = deliver(Secrets(), "Webhook", news(1), spec=spec).problem
    assert problem is not None
    assert (problem.reason, problem.needs_person) == (Reason.PERMISSION_DENIED, True)
    assert "--resource-name=forbidden --resource-name=ops &&" in problem.message
    assert "--serviceaccount=system:operator" in problem.message


def test_a_secret_that_is_not_there_is_named() -> None:
    spec = {"heartbeat": {"urlSecretRef": {"name": "missing"}}}
    problem = deliver(Secrets(), "Heartbeat", news(1), spec=spec).problem
    assert problem is not None
    assert (problem.reason, problem.message.split(";")[0]) == (
        Reason.SECRET_NOT_FOUND,
        "Secret missing does not exist",
    )


# heartbeat


def test_a_heartbeat_is_one_request_for_all_successes() -> None:
    with web() as receiver:
        errand = deliver(Secrets(url=receiver.url), "Heartbeat", news(7))
        nothing = deliver(Secrets(url=receiver.url), "Heartbeat", ())
    assert (len(errand.delivered), receiver.asked) == (7, 1)
    assert (nothing.problem, nothing.delivered) == (None, ())


# mail


# aiosmtpd counts only its own STARTTLS as TLS, and warns of the login on a port that is all TLS.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture(params=["StartTLS", "Implicit"])
def mailbox(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[Mailbox, Secrets]]:
    """An SMTP server with TLS, and the Secret that leads there."""
    with smtp(authority.server(), request.param) as box:
        yield box, Secrets(**_login(box, authority), tls=request.param)


def _login(box: Mailbox, authority: Authority) -> dict[str, str]:
    return {
        "host": "localhost",
        "port": str(box.port),
        "username": USERNAME,
        "password": PASSWORD,
        "ca_crt": authority.pem,
    }


def test_a_batch_is_one_mail_over_tls_with_a_login(mailbox: tuple[Mailbox, Secrets]) -> None:
    box, secrets = mailbox
    errand = deliver(secrets, "Email", news(3))
    assert errand.problem is None
    assert errand.delivered == tuple(one.id for one in news(3))
    (found,) = box.mails
    assert box.recipients == [["ops@example.org", "ann@example.org"]]
    assert box.logins == [True]
    assert found["Subject"] == "[backup] 3 BackupFailed in backups"
    assert (found["From"], found["Auto-Submitted"]) == ("backup@example.org", "auto-generated")
    text = found.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert text.count("DumpFailed: no space left") == 3
    assert "TenantBackup backups/acme-2 of Tenant acme" in text
    assert "requested by ann" in text


def test_one_notification_is_its_own_subject() -> None:
    email = BackupNotifier.model_validate({"metadata": {"name": "ops"}, "spec": SPEC}).spec.email
    assert email is not None
    assert mail(email, news(1))["Subject"] == "[backup] BackupFailed: acme (backups/acme-0)"
    assert mail(email, news(2))["Message-ID"] == mail(email, news(2))["Message-ID"]
    assert mail(email, news(2))["Message-ID"] != mail(email, news(1))["Message-ID"]


def test_a_message_of_a_database_cannot_write_headers() -> None:
    """It is in the body only."""
    email = BackupNotifier.model_validate({"metadata": {"name": "ops"}, "spec": SPEC}).spec.email
    assert email is not None
    evil = mail(email, news(1, message="x\r\nBcc: all@example.org\r\n\r\nhello"))
    assert evil["Bcc"] is None


def test_without_tls_neither_password_nor_mail_is_sent(authority: Authority) -> None:
    with smtp(None, "None") as box:
        problem = deliver(Secrets(**_login(box, authority)), "Email", news(1)).problem
    assert problem is not None
    assert "does not offer STARTTLS" in problem.message
    assert (box.mails, box.logins) == ([], [])


def test_a_wrong_password_is_told_without_it(authority: Authority) -> None:
    with smtp(authority.server()) as box:
        login = _login(box, authority) | {"password": "wrong-password"}
        problem = deliver(Secrets(**login), "Email", news(1)).problem
    assert problem is not None
    assert problem.message == "the server refuses username and password (535)"
    assert box.logins
    assert not any(box.logins)


def test_one_refused_recipient_does_not_cost_the_others_their_mail(authority: Authority) -> None:
    """It is delivered, not again and again, and the refusal is said."""
    with smtp(authority.server()) as box:
        box.refuses = ("ann@example.org",)
        errand = deliver(Secrets(**_login(box, authority)), "Email", news(1))
    assert len(errand.delivered) == 1
    assert errand.problem is not None
    assert errand.problem.message == "the server took the mail, but not for ann@example.org"
    assert box.recipients == [["ops@example.org"]]


def test_a_mail_server_that_is_unknown_or_refused_is_told(authority: Authority) -> None:
    with smtp(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), "None") as box:
        login = _login(box, authority)
        refused = deliver(Secrets(**login), "Email", news(1), Networks.parse(REFUSED)).problem
    closed = deliver(Secrets(**login | {"port": "9"}), "Email", news(1)).problem
    assert refused is not None
    assert "in a network where no receiver may be" in refused.message
    assert closed is not None
    assert closed.message == "the connection was refused"


def test_a_mail_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole conversation has one deadline, however slowly it goes."""
    monkeypatch.setattr(delivery_mail, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held: list[Any] = []  # or it would be closed
        threading.Thread(target=lambda: held.append(silent.accept()), daemon=True).start()
        login = {"host": "127.0.0.1", "port": str(silent.getsockname()[1]), "username": "u", "password": "p"}
        problem = deliver(Secrets(**login), "Email", news(1)).problem
    assert problem == Problem(Reason.DELIVERY_FAILED, "no answer in time")
