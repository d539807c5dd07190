"""One fault at every call of the store, in every stage: loud, nothing half, and the next run heals it.

The stages run in this process, on a real store whose n-th call is made to fail; for each n anew. What a
process leaves that is killed at its n-th call is tried with processes.
"""

from __future__ import annotations

import json
import multiprocessing
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Literal

import pytest

from tenant_backup.archive import names
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stages import probe, upload
from tenant_backup.stores import s3 as s3_store
from tenant_backup.stores.base import digest_of
from tests.stages.pod import BACKUP_ID, FOREVER, TENANT, Pod, Sent, new_pod
from tests.stores.s3_server import BUCKET, Proxy, S3Server

from .acme import Acme, one_at_a_time
from .faults import Faults, die, refused, unavailable
from .site import OTHER_UID, UID, Site, s3_site, volume_site

EARLIER = "acme_2024-01-14_14-30-25"
WASTE = names.pack("0" * 32)  # no backup needs it
_fork = multiprocessing.get_context("fork")
_spawn = multiprocessing.get_context("spawn")  # an S3 client that was used does not survive a fork


def rows(count: int) -> bytes:
    """Rows that do not compress."""
    return b"".join(f"{number}\t{secrets.token_hex(32)}\n".encode() for number in range(count))


OLD: Sent = {"schema": (b"PGDMP\0", None), "t1/0": (rows(300), 300)}
NEW: Sent = {**OLD, "t1/1": (rows(400), 400)}  # the old rows are referred to, the new ones are stored


@dataclass(frozen=True)
class Kind:
    """A sort of fault, and how long an upload waits for a store that has it."""

    when: Literal["before", "after"]
    strike: Callable[[], None] = unavailable
    lasting: bool = False

    @property
    def reason(self) -> Reason:
        """What a stage says of it."""
        return Reason.STORE_PERMISSION_DENIED if self.strike is refused else Reason.STORE_UNAVAILABLE

    @property
    def heals(self) -> bool:
        """Whether who waits is helped."""
        return self.strike is unavailable and not self.lasting

    def at(self, number: int) -> Faults:
        """This fault at that call."""
        return Faults(number, self.when, self.strike, self.lasting)


KINDS = {
    "not done": Kind("before"),
    "done but not answered": Kind("after"),
    "refused": Kind("before", refused),
    "away for good": Kind("before", lasting=True),
    "done and then away for good": Kind("after", lasting=True),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
DEATHS = [Kind("before", die), Kind("after", die)]


@dataclass
class Sweep:
    """Tenant acme, and stores to begin with."""

    acme: Acme
    template: Path

    def begin(self, name: str) -> None:
        """Have the store of that name again."""
        self.acme.load_from(self.template / name)

    def keep(self, name: str) -> None:
        """Begin with the present store later."""
        shutil.copytree(self.acme.root, self.template / name)

    def calls(self, name: str, run: Callable[[], Any]) -> list[str]:
        """Every call of the store that a run makes from there when nothing fails."""
        self.begin(name)
        with self.acme.failing(Faults()) as faults:
            run()
        return faults.calls

    def each(self, name: str, run: Callable[[], Any], kind: Kind) -> Iterator[tuple[int, Any]]:
        """Run it from there with the fault at each call in turn; yield the call's number and the outcome.

        That is what the run returned, or the Failure that ended it.
        """
        numbers = range(1, len(self.calls(name, run)) + 1)
        struck = 0
        for number in numbers:
            self.begin(name)
            with self.acme.failing(kind.at(number)) as faults:
                ended = outcome(run)
            if not faults.struck:
                assert not isinstance(ended, Failure)
                continue
            struck += 1
            yield number, ended
        assert struck >= len(numbers) - 1  # one listing is left after its first name

    def each_death(self, name: str, run: Callable[[], Any], every: int = 1) -> Iterator[int]:
        """Have a process run it from there that is killed before and after each call in turn."""
        numbers = range(1, len(self.calls(name, run)) + 1)
        for kind in DEATHS:
            killed = 0
            for number in numbers[::every]:
                self.begin(name)
                killed += self._dies(run, kind.at(number))
                yield number
            assert killed >= len(numbers[::every]) - 1

    def _dies(self, run: Callable[[], Any], faults: Faults) -> bool:
        def work() -> None:
            with self.acme.failing(faults):
                run()

        process = _fork.Process(target=work, daemon=True)
        process.start()
        process.join(FOREVER)
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0


def outcome(run: Callable[[], Any]) -> Any:
    """Return what it returns, or the Failure that it raises; anything else is a bug."""
    try:
        return run()
    except Failure as failure:
        return failure


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Tenant acme on a volume, with stores named `empty`, `base`, `both` and `waste`."""
    with pytest.MonkeyPatch.context() as patch, new_pod() as pod:
        one_at_a_time(patch)
        patch.setattr(upload, "pause", lambda _seconds: None)
        site = volume_site(pod)
        yield prepared(Acme(site, site.volume / "prod", patch), tmp_path_factory.mktemp("stores"))


def prepared(acme: Acme, template: Path) -> Sweep:
    """Make the stores."""
    sweep = Sweep(acme, template)
    acme.root.mkdir(parents=True, exist_ok=True)
    sweep.keep("empty")
    acme.back_up(OTHER_UID, OLD, EARLIER)
    for name in (WASTE, names.bad("0" * 32)):
        acme.site.store().put(name, b"x", digest_of(b"x"))
    acme.age()
    acme.collect()  # names the waste
    sweep.keep("base")
    acme.back_up(UID, NEW, BACKUP_ID)
    sweep.keep("both")
    acme.delete(OTHER_UID, EARLIER)
    acme.age()
    acme.collect()
    more = names.index_pack("1" * 32)
    acme.site.store().put(more, b"x", digest_of(b"x"))
    acme.age()
    sweep.keep("waste")
    return sweep


def back_up(acme: Acme) -> Callable[[], Any]:
    """The backup that is swept."""
    return lambda: acme.back_up(UID, NEW, BACKUP_ID)


def require_the_one_result(acme: Acme, wanted: Any) -> None:
    """Run the backup again without faults: there is one commit, and the store is as `wanted`.

    What is committed already is the result: it is left as it is.
    """
    arrived = [acme.checksum(name) for name in acme.committed(UID)]
    facts = back_up(acme)()
    assert acme.committed(UID) == [facts["backupId"]] == [BACKUP_ID]
    assert facts["checksum"] == acme.checksum(BACKUP_ID)
    assert arrived in ([], [facts["checksum"]])
    acme.require_whole()
    acme.collect_all()
    assert acme.state() == wanted


def wanted_state(sweep: Sweep, name: str, run: Callable[[], Any]) -> Any:
    """How the store is in the end when nothing fails."""
    sweep.begin(name)
    run()
    sweep.acme.require_whole()
    sweep.acme.collect_all()
    return sweep.acme.state()


@EVERY_KIND
@pytest.mark.parametrize("before", ["empty", "base"])
def test_a_backup_with_a_fault_at_any_call_is_committed_whole_or_fails_loudly(
    sweep: Sweep, kind: Kind, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No manifest unless its own PUT arrived; the next run ends as if nothing had been."""
    acme, run = sweep.acme, back_up(sweep.acme)
    monkeypatch.setattr(upload, "PATIENCE", 300.0 if kind.heals else 0.0)
    wanted = wanted_state(sweep, before, run)
    calls = sweep.calls(before, run)
    commit = calls.index(f"put {names.manifest(BACKUP_ID)}") + 1
    first = next(call for call in calls if call.startswith(("put keys/", "put packs/")))
    upload_begins = calls.index(first) + 1
    for number, ended in sweep.each(before, run, kind):
        acme.require_whole()
        # Loud up to the reading back of the manifest; after it the backup is there whatever happens.
        fatal = number <= commit + 1 and not (kind.heals and number >= upload_begins)
        arrived = number > commit or (number == commit and kind.when == "after") or not fatal
        assert acme.committed(UID) == ([BACKUP_ID] if arrived else [])
        if isinstance(ended, Failure):
            assert fatal
            assert ended.reason is kind.reason
        else:
            assert ended["health"] == ("Healthy" if number <= commit + 1 else "Unknown")
        require_the_one_result(acme, wanted)


@pytest.mark.parametrize("before", ["empty", "base"])
def test_a_pod_that_is_killed_at_a_call_leaves_a_backup_or_none(sweep: Sweep, before: str) -> None:
    """Every second one, all its stages at once: as when the node is lost, before anybody read the result."""
    acme, run = sweep.acme, back_up(sweep.acme)
    wanted = wanted_state(sweep, before, run)
    for _ in sweep.each_death(before, run, every=2):
        acme.require_whole()
        require_the_one_result(acme, wanted)


@pytest.mark.parametrize("name", ["not done", "done but not answered", "refused"])
def test_a_restore_with_a_fault_at_any_call_hands_on_no_wrong_byte(sweep: Sweep, name: str) -> None:
    """`download` says why, and what reached `load` until then is right; nothing is vouched for too early."""
    kind, received = KINDS[name], dict[str, tuple[bytes, bool]]()

    def run() -> None:
        received.clear()
        sweep.acme.restore(BACKUP_ID, received)

    for _, ended in sweep.each("both", run, kind):
        assert isinstance(ended, Failure)
        assert ended.reason is kind.reason
        for segment_id, (data, vouched) in received.items():
            right = NEW[segment_id][0]
            assert right == data if vouched else right.startswith(data)
        run()
        assert received == {segment_id: (data, True) for segment_id, (data, _) in NEW.items()}


def verification(acme: Acme, level: Literal["Checksum", "Contents"]) -> jobs.Verify:
    """Verifies the newer backup."""
    return jobs.Verify(
        uid=UID,
        backup_id=BACKUP_ID,
        level=level,
        everything=False,
        day=0,
        tenant=TENANT,
        store=acme.site.described,
        manifest_sha256=acme.checksum(BACKUP_ID).removeprefix("sha256:"),
        signing_key=acme.keys.public,
    )


@pytest.mark.parametrize("level", ["Checksum", "Contents"])
@pytest.mark.parametrize("name", ["not done", "done but not answered", "refused"])
def test_a_verification_with_a_fault_at_any_call_never_calls_damage_healthy(
    sweep: Sweep, name: str, level: Literal["Checksum", "Contents"]
) -> None:
    """Nor a whole backup damaged: it fails loudly. Only a mark that cannot be written is but a doubt."""
    acme, kind = sweep.acme, KINDS[name]
    sweep.begin("both")
    (damaged,) = {ref.id for ref in acme.manifests()[1].packs} - {ref.id for ref in acme.manifests()[0].packs}
    path = acme.root / "acme" / names.pack(damaged)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    shutil.rmtree(sweep.template / "damaged", ignore_errors=True)
    sweep.keep("damaged")
    job = verification(acme, level)
    wanted = acme.verify(job)
    assert (wanted["health"], wanted["damaged"]) == ("Corrupt", f"{names.pack(damaged)} is damaged")
    marks = acme.state()[1]["bad"]
    calls = sweep.calls("damaged", lambda: acme.verify(job))
    mark = calls.index(f"put {names.bad(damaged)}") + 1
    for number, ended in sweep.each("damaged", lambda: acme.verify(job), kind):
        assert isinstance(ended, Failure) is (number != mark)
        if isinstance(ended, Failure):
            assert ended.reason is kind.reason
        else:
            assert ended["damaged"] == wanted["damaged"]
            assert "no mark could be written" in ended["verification"]["message"]
        assert acme.verify(job) == wanted
        assert acme.state()[1]["bad"] == marks


COLLECTING = pytest.mark.parametrize("name", ["not done", "done but not answered", "refused"])


@COLLECTING
def test_a_collection_with_a_fault_at_any_call_deletes_nothing_that_is_needed(
    sweep: Sweep, name: str
) -> None:
    """It fails loudly; the next ones delete the rest."""
    acme = sweep.acme
    wanted = wanted_state(sweep, "waste", acme.collect)
    for _, ended in sweep.each("waste", acme.collect, KINDS[name]):
        assert isinstance(ended, Failure)
        assert ended.reason is KINDS[name].reason
        acme.require_whole()
        acme.collect_all()
        assert acme.state() == wanted


def test_a_collector_killed_at_any_call_is_continued_by_the_next(sweep: Sweep) -> None:
    """Nothing that is needed is gone, and nothing is left for ever."""
    acme = sweep.acme
    wanted = wanted_state(sweep, "waste", acme.collect)
    for _ in sweep.each_death("waste", acme.collect):
        acme.require_whole()
        acme.collect_all()
        assert acme.state() == wanted


def delete(acme: Acme) -> Callable[[], Any]:
    """The deletion that is swept: the newer backup needs packs of this one."""
    return lambda: acme.delete(OTHER_UID, EARLIER)


@COLLECTING
def test_a_deletion_with_a_fault_at_any_call_is_done_or_fails_loudly(sweep: Sweep, name: str) -> None:
    """What cannot be named for the collector is said, and named by the next collection."""
    acme, run, kind = sweep.acme, delete(sweep.acme), KINDS[name]
    wanted = wanted_state(sweep, "both", run)
    gone = sweep.calls("both", run).index(f"delete {names.manifest(EARLIER)}") + 1
    for number, ended in sweep.each("both", run, kind):
        acme.require_whole()
        arrived = number > gone or (number == gone and kind.when == "after")
        assert acme.committed(OTHER_UID) == ([] if arrived else [EARLIER])
        assert isinstance(ended, Failure) is (number <= gone)
        if isinstance(ended, Failure):
            assert ended.reason is kind.reason
        else:
            assert "stay until the next collection" in ended["message"]
        assert run()["deleted"] is not arrived
        acme.collect_all()
        assert acme.state() == wanted


def test_a_deletion_killed_at_any_call_is_repeated(sweep: Sweep) -> None:
    """The other backup is not touched."""
    acme, run = sweep.acme, delete(sweep.acme)
    wanted = wanted_state(sweep, "both", run)
    for _ in sweep.each_death("both", run):
        acme.require_whole()
        run()
        acme.collect_all()
        assert acme.state() == wanted


@pytest.mark.parametrize("name", ["not done", "done but not answered"])
def test_a_probe_with_a_fault_at_any_call_calls_no_store_good(sweep: Sweep, name: str) -> None:
    """The next one is of the same opinion as ever, and leaves nothing of either."""
    acme = sweep.acme
    good = acme.probe()
    for _, ended in sweep.each("empty", acme.probe, KINDS[name]):
        assert isinstance(ended, Failure)
        assert ended.reason is Reason.STORE_UNAVAILABLE
        assert acme.probe() == good
        assert list(acme.site.store(probe.FOLDER).entries(probe.folder_of("store-uid"))) == []


# The same over the network: what a connection that breaks does to an S3 client.


@pytest.fixture
def over_s3(s3: S3Server, proxy: Proxy, tmp_path: Path) -> Iterator[Sweep]:
    """Tenant acme on an S3 server behind a proxy."""
    with pytest.MonkeyPatch.context() as patch, new_pod() as pod:
        one_at_a_time(patch)
        patch.setattr(upload, "pause", lambda _seconds: None)
        site = s3_site(pod, proxy.endpoint)
        yield prepared(Acme(site, s3.data / BUCKET / site.described.prefix, patch), tmp_path / "stores")


@dataclass
class Line:
    """Counts the requests that pass the proxy, and cuts the line at one, or from one on."""

    proxy: Proxy
    at: int = 0
    requests: int = 0
    lose_answer: bool = False

    def lose_an_answer(self, at: int) -> None:
        """The request arrives; the client never hears of it."""
        self._begin(at)

        def answer(block: bytes) -> bytes | None:
            lost, self.lose_answer = self.lose_answer, False
            return None if lost else block

        def request(block: bytes) -> bytes | None:
            self.lose_answer = self._is_next(block) and self.requests == self.at
            return block

        self.proxy.request, self.proxy.answer = request, answer

    def cut(self, at: int) -> None:
        """From this request on nothing arrives."""
        self._begin(at)
        self.proxy.request = lambda block: None if self._is_next(block) and self.requests >= at > 0 else block

    def mend(self) -> None:
        """All is well again."""
        self.proxy.request = self.proxy.answer = lambda block: block

    def _begin(self, at: int) -> None:
        self.at, self.requests, self.lose_answer = at, 0, False

    def _is_next(self, block: bytes) -> bool:
        begins = block.startswith((b"GET ", b"PUT ", b"HEAD ", b"DELETE "))
        self.requests += begins
        return begins


def test_answers_lost_on_the_way_from_s3_change_nothing(over_s3: Sweep, proxy: Proxy) -> None:
    """Each in turn, of every request of a backup: a PUT that timed out but arrived is not done twice."""
    acme, run, line = over_s3.acme, back_up(over_s3.acme), Line(proxy)
    wanted = wanted_state(over_s3, "base", run)
    over_s3.begin("base")
    line.lose_an_answer(0)
    run()
    for number in range(1, line.requests + 1):
        over_s3.begin("base")
        line.lose_an_answer(number)
        assert run()["health"] == "Healthy"
        assert line.requests > number  # it was asked again
        line.mend()
        require_the_one_result(acme, wanted)


def test_an_s3_server_that_goes_away_at_a_request_leaves_a_backup_or_none(
    over_s3: Sweep, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StoreUnavailable, and the next run ends as if nothing had been; every third request."""
    acme, run, line = over_s3.acme, back_up(over_s3.acme), Line(proxy)
    monkeypatch.setattr(s3_store, "PATIENCE", 0.0)
    monkeypatch.setattr(upload, "PATIENCE", 0.0)
    wanted = wanted_state(over_s3, "base", run)
    over_s3.begin("base")
    line.cut(0)
    run()
    count, failed = line.requests, 0
    for number in range(1, count + 1, 3):
        over_s3.begin("base")
        line.cut(number)
        ended = outcome(run)
        line.mend()
        acme.require_whole()
        if isinstance(ended, Failure):
            failed += 1
            assert ended.reason is Reason.STORE_UNAVAILABLE
        else:
            assert (ended["health"], acme.committed(UID)) == ("Unknown", [BACKUP_ID])
        require_the_one_result(acme, wanted)
    assert failed > count / 5


# Two at once.


class Meeting(Faults):
    """Two writers wait for each other where only one can win."""

    def __init__(self, barrier: Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def begin(self, call: str) -> int:
        """Go on together."""
        if call.startswith(("put TENANT", "put keys/", "put manifests/")):
            self._barrier.wait(FOREVER)
        return super().begin(call)


def write(site: Site, uid: str, sent: Sent, barrier: Barrier) -> None:
    """Back up in a process of its own; leave facts or reason in the pod's folder."""
    acme = Acme(site, Path(), pytest.MonkeyPatch())
    with acme.failing(Meeting(barrier)):
        ended = outcome(lambda: acme.back_up(uid, sent, BACKUP_ID, lambda: barrier.wait(FOREVER) and None))
    if isinstance(ended, Failure):
        ended = {"reason": ended.reason, "retriable": ended.retriable}
    (site.pod.root / "ended").write_text(json.dumps(ended))


def second_pod(site: Site, pod: Pod) -> Site:
    """Another pod of the same tenant on the same store."""
    shutil.copytree(site.pod.root / "secrets", pod.root / "secrets", dirs_exist_ok=True)
    if site.described.kind == "volume":
        (pod.root / "store").symlink_to(site.volume)
    return replace(site, pod=replace(site.pod, root=pod.root, started=[]))


@pytest.fixture(params=["volume", "s3"])
def race(request: pytest.FixtureRequest, empty_pod: Pod) -> Iterator[Callable[[str, str], Any]]:
    """Has two first backups run at once, of 300 and of 700 rows; returns acme and how each ended."""
    if request.param == "volume":
        site = volume_site(empty_pod)
        root = site.volume / "prod"
    else:
        server: S3Server = request.getfixturevalue("s3")
        site = s3_site(empty_pod, server.endpoint)
        root = server.data / BUCKET / site.described.prefix

    def run(*uids: str) -> Any:
        barrier = _spawn.Barrier(2)
        sites = [site, second_pod(site, other)]
        for each, uid, sent in zip(sites, uids, (OLD, NEW), strict=True):
            process = _spawn.Process(target=write, args=(each, uid, sent, barrier))
            process.start()
            writers.append(process)
        for process in writers:
            process.join(FOREVER)
        return Acme(site, root, patch), [json.loads((each.pod.root / "ended").read_text()) for each in sites]

    writers: list[Any] = []
    with pytest.MonkeyPatch.context() as patch, new_pod() as other:
        yield run
        for process in writers:
            process.kill()


def test_of_two_pods_of_one_backup_one_commits_and_both_say_the_same(
    race: Callable[[str, str], tuple[Acme, Any]],
) -> None:
    """A second pod is started when the first is lost sight of; both may live."""
    acme, (one, two) = race(UID, UID)
    (manifest,) = acme.manifests()
    assert one["checksum"] == two["checksum"] == acme.checksum(BACKUP_ID)
    assert one["rows"] == two["rows"] == manifest.rows
    acme.sent[UID] = OLD if manifest.rows == 300 else NEW
    acme.require_whole()
    acme.collect_all()
    acme.require_whole()
    assert acme.state()[1] == {"packs": 1, "lists": 1, "keys": 1, "bad": 0, "gc": 0}


def test_of_two_backups_that_wish_for_one_name_the_loser_gets_the_next(
    race: Callable[[str, str], tuple[Acme, Any]],
) -> None:
    """It fails at its commit, worth another try, and its next attempt takes another name."""
    acme, ended = race(UID, OTHER_UID)
    acme.sent |= {UID: OLD, OTHER_UID: NEW}
    (loser,) = (uid for uid, one in zip((UID, OTHER_UID), ended, strict=True) if "reason" in one)
    (lost,) = (one for one in ended if "reason" in one)
    assert lost == {"reason": Reason.NAME_TAKEN, "retriable": True}
    assert [each.backup.uid for each in acme.manifests()] == [UID if loser == OTHER_UID else OTHER_UID]
    acme.require_whole()

    facts = acme.back_up(loser, acme.sent[loser], BACKUP_ID)
    assert acme.committed(loser) == [facts["backupId"]] == [f"{BACKUP_ID}-2"]
    assert len(acme.manifests()) == 2
    acme.require_whole()
