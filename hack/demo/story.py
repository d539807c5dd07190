"""Two tenants of one HR product, on PostgreSQL and on MariaDB with uploads: backed up, destroyed, restored, compared.

What is compared are the servers' own hashes, and those of the files.
"""

from __future__ import annotations

import datetime
import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hack.lab.kubectl import Kubectl, condition, is_over, is_true
from hack.lab.servers import (
    S3,
    MariaDB,
    Postgres,
    Receiver,
    mariadb,
    namespace,
    postgres,
    receiver,
    s3,
)
from hack.lab.volumes import TREE, claim, on_volumes

from .leaks import occurrences_in_backups
from .screen import Screen
from .tenants import UPLOADS, DemoTenant, object_, uploads

_SLOTS_AND_RETENTION = 240  # seconds: the next slot, and a minute in which the list is shown
_SECRET_COLUMNS = {"app_user": ["password_hash", "api_token"]}
_GROW = """mkdir letters && seq 300 | while read n; do echo "Dear $n" > letters/$n.txt; done
head -c 5000000 /dev/urandom > photo.jpg; ln -s photo.jpg cover; chmod 750 letters; chmod 440 photo.jpg"""


class StoryError(RuntimeError):
    """A claim of the demo does not hold."""


@dataclass(frozen=True)
class _Before:
    """What there was when it was backed up: rows and hashes by table, and the files."""

    acme: dict[str, str]
    globex: dict[str, str]
    uploads: str


class Story:
    """The demo's steps in order; `tell` runs them all."""

    def __init__(self, kubectl: Kubectl, screen: Screen, images: str) -> None:
        self._kubectl = kubectl
        self._screen = screen
        self._images = images
        self._postgres: Postgres
        self._mariadb: MariaDB
        self._s3: S3
        self._receiver: Receiver
        self._acme = DemoTenant.new("acme")
        self._globex = DemoTenant.new("globex")

    def tell(self) -> None:
        """Run every step; raises StoryError where a claim does not hold."""
        self._a_fresh_namespace()
        self._servers_and_data()
        self._three_kinds_of_objects()
        self._schedule_starts()
        self._somebody_wants_to_know()
        before = self._both_are_backed_up()
        self._no_password_leaves()
        self._acme_is_damaged_and_swapped_back(before.acme)
        self._globex_is_lost_and_restored(before)
        self._nobody_restores_into_another_tenant()
        self._a_lost_object_comes_back()
        self._the_schedule_fires_and_prunes()
        self._somebody_was_told()
        self._what_next()

    def _a_fresh_namespace(self) -> None:
        self._screen.step("A fresh namespace for the demo")
        name = self._kubectl.namespace
        self._kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")
        self._kubectl.apply(namespace(name))
        self._screen.good(f"namespace {name}: only pods of the restricted profile may run in it")

    def _servers_and_data(self) -> None:
        self._screen.step(
            "PostgreSQL, MariaDB, an S3 store, a volume, and two tenants with an HR product's data"
        )
        image, kubectl = self._images, self._kubectl
        with ThreadPoolExecutor() as pool:
            store = pool.submit(s3, kubectl, "s3", f"{image}test-versitygw:dev", "backups")
            pg = pool.submit(postgres, kubectl, "pg", f"{image}test-postgres:17")
            maria = pool.submit(mariadb, kubectl, "maria", f"{image}test-mariadb:11.8")
            pager = pool.submit(receiver, kubectl, "pager", f"{image}tenant-backup-runner:dev")
            kubectl.apply(claim(UPLOADS))
            pool.submit(self._on_uploads, "application", _GROW).result()
        self._s3, self._receiver = store.result(), pager.result()
        self._postgres, self._mariadb = pg.result(), maria.result()
        for tenant, server in ((self._acme, self._postgres), (self._globex, self._mariadb)):
            password = secrets.token_hex(16)
            server.create_tenant(tenant.name, password)
            kubectl.apply(*tenant.secrets(password))
        acme, globex = self._postgres.fingerprint("acme"), self._mariadb.hashes("globex")
        self._screen.good(f"acme on PostgreSQL: {len(acme)} tables, {_rows(acme):,} rows")
        self._screen.good(
            f"globex on MariaDB: {len(globex)} tables, {_rows(globex):,} rows; its uploads are on a volume"
        )

    def _three_kinds_of_objects(self) -> None:
        self._screen.step("Tell the operator: two Tenants and a BackupStore")
        acme = self._acme.spec("PostgreSQL", self._postgres, "public.app_user")
        globex = self._globex.spec("MariaDB", self._mariadb, "globex.app_user") | {"files": [uploads()]}
        tenants = [object_("Tenant", "acme", acme), object_("Tenant", "globex", globex)]
        self._kubectl.apply(*self._s3.store("prod", "backups", "demo"), *tenants)
        for kind, name in (("bst", "prod"), ("tnt", "acme"), ("tnt", "globex")):
            self._kubectl.wait(kind, name, is_true("Ready"), 60)
        self._screen.command(self._kubectl, "get", "tnt,bst")

    def _schedule_starts(self) -> None:
        """Early, so that its minute passes while other things happen."""
        template = {"storeRef": {"name": "prod"}}
        spec = {
            "schedule": "* * * * *",
            "timeZone": "Europe/Rome",
            "tenants": ["acme"],
            "template": template,
        }
        self._kubectl.apply(object_("BackupSchedule", "every-minute", {**spec, "retention": {"keepLast": 1}}))

    def _somebody_wants_to_know(self) -> None:
        self._screen.step(
            "A program wants to be told; the operator may not read its Secret, and says what to do"
        )
        named = {"name": self._receiver.secret}
        spec = {
            "events": ["BackupSucceeded", "BackupFailed", "RestoreSucceeded"],
            "webhook": {"urlSecretRef": named, "signingSecretRef": named},
        }
        self._kubectl.apply(object_("BackupNotifier", "pager", spec))
        refused = self._kubectl.wait("bn", "pager", lambda found: "`" in _ready(found).get("message", ""), 30)
        message = _ready(refused)["message"]
        self._screen.line(f"  {message}")
        for command in message.split("`")[1].split(" && "):
            self._kubectl(*command.split()[1:])
        self._kubectl.wait("bn", "pager", is_true("Ready"), 60)
        self._screen.good("done as it says: the notifier is ready")

    def _both_are_backed_up(self) -> _Before:
        self._screen.step("Back both up, side by side: globex's database and uploads are one backup")
        before = _Before(self._postgres.fingerprint("acme"), self._globex_now(), self._uploads_now("before"))
        names = [f"{tenant.name}-before-upgrade" for tenant in (self._acme, self._globex)]
        for name in names:
            spec = {"tenantRef": {"name": name.split("-")[0]}, "storeRef": {"name": "prod"}}
            self._kubectl.apply(object_("TenantBackup", name, spec))
        self._follow("tb", names)
        self._screen.command(self._kubectl, "get", "tb", *names)
        return before

    def _no_password_leaves(self) -> None:
        self._screen.step("Columns with passwords never left the servers")
        listing = self._s3.shell("cd /data/backups && find . -type f | sort")
        self._screen.line(
            f"  the store holds {len(listing.splitlines())} objects; decrypted with the owner's key they contain"
        )
        for tenant, server in ((self._acme, self._postgres), (self._globex, self._mariadb)):
            name = tenant.name
            hashes = server.sql("SELECT password_hash FROM app_user ORDER BY id LIMIT 100", name).splitlines()
            mails = server.sql("SELECT email FROM employee ORDER BY id LIMIT 100", name).splitlines()
            key = str((self._kubectl.get("tnt", name) or {})["status"]["signingKey"])
            wanted = {"hash": hashes, "mail": mails}
            found = occurrences_in_backups(self._s3, f"backups/demo/{name}", tenant.identity, key, wanted)
            self._check(
                found == {"hash": 0, "mail": len(mails)},
                f"{name}: {found['mail']} of {len(mails)} e-mail addresses looked for,"
                f" {found['hash']} of {len(hashes)} password hashes",
            )

    def _acme_is_damaged_and_swapped_back(self, before: dict[str, str]) -> None:
        self._screen.step(
            "Somebody ruins acme's database; a restore swaps the good one in, with an undo window"
        )
        server = self._postgres
        server.sql("DROP TABLE finance.invoice; UPDATE employee SET salary = 0; TRUNCATE attendance", "acme")
        self._check(server.fingerprint("acme") != before, "the database is damaged: its hashes differ")
        of_all = "SELECT md5(string_agg(password_hash, '' ORDER BY id)) FROM app_user"
        passwords = server.sql(of_all, "acme")
        self._restore("acme-undo-disaster", "acme-before-upgrade", "acme")
        self._check(server.fingerprint("acme") == before, "every table has the same rows and hash as before")
        self._check(
            passwords == server.sql(of_all, "acme"),
            "users keep their present passwords (KeepLive): they can log in",
        )

    def _globex_is_lost_and_restored(self, before: _Before) -> None:
        self._screen.step("Globex's database and uploads are gone altogether")
        self._mariadb.sql("DROP DATABASE globex")
        self._on_uploads("accident", "find . -mindepth 1 -not -name lost+found -delete")
        self._restore("globex-from-ashes", "globex-before-upgrade", "globex", "uploads")
        self._check(
            self._uploads_now("after") == before.uploads,
            "all uploads are back, with names, modes, times, links and the same SHA-256",
        )
        self._check(
            self._globex_now() == before.globex,
            "every table has the same rows and hash as before, but for the excluded columns",
        )
        locked = self._mariadb.sql("SELECT count(*) FROM app_user WHERE password_hash <> '!'", "globex")
        self._check(
            locked == "0", "password hashes have the value asked for, '!': nobody can log in with a stale one"
        )

    def _nobody_restores_into_another_tenant(self) -> None:
        self._screen.step("A backup of acme into globex? No")
        spec = {
            "source": {"backupRef": {"name": "acme-before-upgrade"}},
            "target": {"tenantRef": {"name": "globex"}, "database": "stolen"},
            "strategy": "NewDatabase",
        }
        self._kubectl.apply(object_("TenantRestore", "acme-into-globex", spec))
        refused = self._kubectl.wait("tr", "acme-into-globex", is_over, 30)
        said = condition(refused, "Failed")
        self._check(said.get("reason") == "CrossTenantAccess", f"{said.get('reason')}: {said.get('message')}")
        exists = self._mariadb.sql(
            "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'stolen'"
        )
        self._check(exists == "0", "no database was made")

    def _a_lost_object_comes_back(self) -> None:
        self._screen.step("Somebody deletes the object of a backup; the backup is still in the store")
        spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, "deletionPolicy": "Retain"}
        self._kubectl.apply(object_("TenantBackup", "acme-keepsake", spec))
        self._follow("tb", ["acme-keepsake"])
        lost = (self._kubectl.get("tb", "acme-keepsake") or {})["status"]
        self._screen.command(self._kubectl, "delete", "tb", "acme-keepsake")
        self._screen.command(self._kubectl, "annotate", "bst", "prod", "tenantbackup.dev/import=please")
        found = self._wait_for_backup(lambda item: item["status"].get("backupId") == lost["backupId"])
        self._check(found["status"]["checksum"] == lost["checksum"], "it is back, and has the same checksum")
        self._screen.command(self._kubectl, "get", "tb", found["metadata"]["name"])

    def _the_schedule_fires_and_prunes(self) -> None:
        self._screen.step("A schedule, once a minute, keeps the newest backup only")
        ours = ("-l", "tenantbackup.dev/schedule=every-minute")
        first = self._wait_for_backup(lambda item: item["status"].get("state") == "Succeeded", *ours)
        name = first["metadata"]["name"]
        self._check(True, f"{name} was made in its minute")
        self._screen.line("  what retention deletes is shown first, for as long as the schedule's interval")
        give_up = time.monotonic() + _SLOTS_AND_RETENTION
        while self._kubectl.get("tb", name) is not None:
            if time.monotonic() > give_up:
                raise StoryError(f"{name} was not deleted, though keepLast is 1")
            time.sleep(1)
        done = self._kubectl.get("bsch", "every-minute") or {}
        self._check(
            bool(done["status"].get("nextRuns")), f"{name} is gone; last run {done['status']['lastRun']}"
        )
        self._kubectl("patch", "bsch", "every-minute", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        self._screen.command(self._kubectl, "get", "bsch")
        self._screen.command(self._kubectl, "get", "tb,tr")

    def _somebody_was_told(self) -> None:
        self._screen.step("The program was told, with a signature it checked")
        wanted = {
            ("BackupSucceeded", "acme-before-upgrade"),
            ("BackupSucceeded", "globex-before-upgrade"),
            ("RestoreSucceeded", "globex-from-ashes"),
        }
        give_up = time.monotonic() + 60
        while wanted - (
            told := {(one["data"]["event"], one["data"]["name"]) for one in self._receiver.told()}
        ):
            if time.monotonic() > give_up:
                raise StoryError(f"nobody was told of {sorted(wanted - told)}")
            time.sleep(0.5)
        for event, name in sorted(told):
            self._screen.line(f"    {event:18} {name}")
        self._check(wanted <= told, f"{len(told)} notifications, each once")

    def _wait_for_backup(self, wanted: Callable[[dict[str, Any]], bool], *labels: str) -> dict[str, Any]:
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up:
            for item in self._kubectl.list("tb", *labels):
                if wanted({"status": {}, **item}):
                    return item
            time.sleep(0.5)
        raise StoryError("the backup waited for did not come within 90 s")

    def _what_next(self) -> None:
        self._screen.step("What to try next")
        name = self._kubectl.namespace
        prefix = f"kubectl --context {self._kubectl.context}" if self._kubectl.context else "kubectl"
        for command in (
            *(
                []
                if self._kubectl.context
                else ["export KUBECONFIG=$PWD/.local/kubeconfig PATH=$PWD/.local/bin:$PATH"]
            ),
            f"{prefix} -n {name} get tb,tr,tnt,bst,bsch,bn",
            f"{prefix} -n {name} describe tb acme-before-upgrade",
            f'{prefix} -n {name} patch tr acme-undo-disaster --type=merge -p \'{{"spec":{{"undo":true}}}}\'   # switch back',
            f'{prefix} -n {name} patch bsch every-minute --type=merge -p \'{{"spec":{{"suspend":false}}}}\'',
            f"{prefix} explain tenantbackup.spec",
        ):
            self._screen.line(f"  {command}")

    def _restore(self, name: str, backup: str, tenant: str, *volumes: str) -> None:
        """Replace a tenant's database, which has its name, and these volumes."""
        files = [{"name": volume} for volume in volumes]
        spec = {
            "source": {"backupRef": {"name": backup}},
            "target": {"tenantRef": {"name": tenant}, "database": tenant, "files": files},
            "strategy": "Replace",
        }
        self._kubectl.apply(object_("TenantRestore", name, spec))
        waiting = self._kubectl.wait(
            "tr", name, lambda found: "ApprovalPending" in str(found.get("status")), 30
        )
        message = next(
            item["message"]
            for item in waiting["status"]["conditions"]
            if item.get("reason") == "ApprovalPending"
        )
        self._screen.line(f"  it waits: {message}")
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        word = {"database": tenant, "files": volumes, "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}
        confirm = json.dumps({"spec": {"approval": {"confirm": word}}}, separators=(",", ":"))
        self._screen.command(
            self._kubectl,
            "patch",
            "tr",
            name,
            "--type=merge",
            "-p",
            confirm,
        )
        self._follow("tr", [name])

    def _follow(self, kind: str, names: list[str], seconds: float = 90) -> None:
        """Print each change of state and progress until all have ended; raises StoryError unless all are good."""
        give_up = time.monotonic() + seconds
        last: dict[str, str] = {}
        while time.monotonic() < give_up:
            found = {name: self._kubectl.get(kind, name) or {} for name in names}
            for name, item in found.items():
                text = _state_line(item)
                if text and last.get(name) != text:
                    last[name] = text
                    self._screen.line(f"    {name:24} {text}")
            if all(is_over(item) for item in found.values()):
                break
            time.sleep(0.3)
        for name, item in found.items():
            if item.get("status", {}).get("state") != "Succeeded":
                why = (
                    condition(item, "Failed") or condition(item, "Stalled") or condition(item, "Reconciling")
                )
                raise StoryError(
                    f"{name} is {item.get('status', {}).get('state')}: {why.get('reason')}: {why.get('message')}"
                )

    def _check(self, holds: bool, claim: str) -> None:
        if not holds:
            raise StoryError(f"this does not hold: {claim}")
        self._screen.good(claim)

    def _globex_now(self) -> dict[str, str]:
        return self._mariadb.hashes("globex", without=_SECRET_COLUMNS)

    def _uploads_now(self, pod: str) -> str:
        return self._on_uploads(pod, TREE)

    def _on_uploads(self, pod: str, script: str) -> str:
        image = f"{self._images}tenant-backup-runner:dev"
        return on_volumes(self._kubectl, pod, image, [UPLOADS], script)


def _rows(hashes: dict[str, str]) -> int:
    return sum(int(value.split()[0]) for value in hashes.values())


def _ready(item: dict[str, Any]) -> dict[str, Any]:
    return condition(item, "Ready")


def _state_line(item: dict[str, Any]) -> str:
    status = item.get("status", {})
    progress = status.get("progress", {})
    parts = [status.get("state", ""), progress.get("phase", "") if status.get("state") == "Running" else ""]
    parts += (
        [f"{progress['percent']} %"] if status.get("state") == "Running" and "percent" in progress else []
    )
    parts += [status["size"]] if status.get("size") and status.get("state") == "Succeeded" else []
    return " ".join(part for part in parts if part)
