"""A seeded model checker: writers, collectors, deletions and crashes in any order, on the real rules.

Each process runs the real code of `archive.collector` in a thread of its own and stops before every
request to a store in memory; one seeded scheduler says who goes on, who dies, and how much time passes
meanwhile. Invariants are checked at every request. A history that breaks one prints its seed.

Time is in hours here. Objects get the time of who writes them, as on volumes whose clients do, and
clocks are up to SKEW wrong; runs and collections of any process may be stopped for days.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest

from tenant_backup.archive import collector, names
from tenant_backup.archive.manifest import CataloguePlace, Manifest, document, parse
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.archive.writer import Written
from tenant_backup.contract.objects import AlreadyExistsError, Digest, Entry, NotFoundError, digest_of, read
from tenant_backup.contract.reasons import Failure

from .sample import Keyring, describe

MAX_RUN, GRACE, SKEW = 24.0, 25.0, 0.49  # two clocks differ by less than GRACE - MAX_RUN
HISTORIES, REQUESTS = 80, 400  # requests of one history
MEETINGS = 800  # each mutant that needs one is found in the first 250
PAGE = 3  # names per listing request
SHA256 = "0" * 64
LENGTH = 10  # bytes of each pack


class Broken(AssertionError):
    """An invariant does not hold."""


class Wasted(Broken):
    """What nobody needs is left."""


class Killed(BaseException):
    """The process dies here."""


class Process:
    """Code that stops before each request until it is told to go on."""

    def __init__(self, skew: float, body: Callable[[Process], None]) -> None:
        self.skew = skew
        self.done = False
        self.asleep = 0  # rounds for which others go on
        self.next = ""  # the request it stopped before: "put packs", "get manifests", …
        self._body = body
        self._killed = False
        self._error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def go(self, requests: int) -> None:
        """Do so many requests, or what is left."""
        for _ in range(requests):
            if not self.done:
                self.step()

    def go_until(self, *requests: str) -> None:
        """Stop right before the next request that is one of these; it must come."""
        self.step()
        while self.next not in requests:
            assert not self.done, f"there was no {requests}"
            self.step()

    def step(self) -> None:
        """Do one request and go on to the next."""
        self._go.release()
        self._stopped.acquire()
        if self._error is not None:
            raise self._error

    def kill(self) -> None:
        """Die before the next request."""
        self._killed = True
        if not self.done:
            self.step()

    def stop(self) -> None:
        """Wait, in the process, until told to go on."""
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._killed:
                self._body(self)
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        self.done = True
        self._stopped.release()


@dataclass
class Stored:
    """One object."""

    data: bytes
    stamp: float  # what the listing says
    since: float  # the truth


@dataclass
class World:
    """The store, the time, and what must hold."""

    random: random.Random
    time: float = 1000.0
    objects: dict[str, Stored] = field(default_factory=dict)
    marked: dict[str, float] = field(default_factory=dict)  # id: since when it is bad
    counted: dict[str, set[str]] = field(default_factory=dict)  # manifest: what it names
    needed: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)  # what happened, to show that it does
    requests: int = 0
    key: str = ""

    def check_put(self, name: str, data: bytes) -> None:
        """A new object was written."""
        folder, last = name.split("/", 1)
        if folder == "bad":
            self.marked.setdefault(last, self.time)
        for listed in json.loads(data)["objects"] if folder == "gc" else ():
            there = self.objects.get(listed)
            if there and not listed.startswith("bad/") and self.time - there.since < GRACE - 2 * SKEW:
                raise Broken(f"{listed} is named for deletion and only {self.time - there.since} old")

    def check_delete(self, name: str) -> None:
        """An object is about to be deleted."""
        if self.needed[name]:
            raise Broken(f"{name} is deleted and a backup needs it")
        if name.startswith(("packs/", "lists/")):
            self.seen["deleted"] += 1
            if self.time - self.objects[name].since < GRACE - 2 * SKEW:
                raise Broken(f"{name} is deleted and younger than the grace")

    def count(self, name: str, manifest: Manifest) -> None:
        """From now on this manifest is a backup."""
        if name in self.counted or name not in self.objects:
            return
        needed = named(manifest)
        gone = needed - self.objects.keys()
        if gone:
            raise Broken(f"{name} names {gone}, which is not there")
        self.counted[name] = needed
        self.needed.update(needed)

    def forget(self, name: str) -> None:
        """This manifest is deleted."""
        self.needed.subtract(self.counted.pop(name, set()))


@dataclass
class View:
    """The store as one process sees it; keeps the promises of `stores.base.Store`."""

    world: World
    process: Process

    def put(self, name: str, source: bytes, digest: Digest) -> None:
        """See Store."""
        self._stop("put", name)
        if name in self.world.objects:
            raise AlreadyExistsError(name)
        now = self.world.time
        self.world.objects[name] = Stored(source, now + self.process.skew, now)
        self.world.check_put(name, source)

    def chunks(self, name: str) -> Iterator[bytes]:
        """See Store."""
        self._stop("get", name)
        if name not in self.world.objects:
            raise NotFoundError(name)
        yield self.world.objects[name].data

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """Page by page, as the objects are then: the whole is no snapshot."""
        while True:
            self._stop("list", folder)
            objects = self.world.objects
            page = sorted(name for name in objects if name.startswith(f"{folder}/") and name > after)[:PAGE]
            found = [Entry(name, len(objects[name].data), objects[name].stamp) for name in page]
            yield from found
            if len(page) < PAGE:
                return
            after = page[-1]

    def delete(self, name: str) -> None:
        """See Store."""
        self._stop("delete", name)
        if name not in self.world.objects:
            return
        if name.startswith("manifests/"):
            self.world.forget(name)
        self.world.check_delete(name)
        del self.world.objects[name]

    def _stop(self, verb: str, name: str) -> None:
        self.process.next = f"{verb} {name.split('/', 1)[0]}"
        # What was looked at before is old news then.
        dangerous = self.process.next in ("put manifests", "delete packs", "delete lists", "delete gc")
        if self.world.random.random() < (0.5 if dangerous else 0.03):
            self.process.asleep = self.world.random.choice((2, 5, 15, 60))
        self.process.stop()
        self.world.requests += 1


def named(manifest: Manifest) -> set[str]:
    packs = {names.pack(ref.id) for ref in manifest.packs}
    return packs | {names.index_pack(ref.id) for ref in manifest.lists}


SOME = ObjectRef(id="0" * 32, length=LENGTH, sha256=SHA256, plain=LENGTH)
TEMPLATE = describe(
    Keyring.fresh(),
    Written(packs=(), lists=(SOME,), catalogue=CataloguePlace(SOME.id, 0, 1), logical=1, added=1),
)


@dataclass(frozen=True)
class Rules:
    """What of the real code the processes use, so that a mutant can be put in its place."""

    grace: float = GRACE
    recheck: bool = True


class Model:
    """One history."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.rules = rules
        self.random = random.Random(seed)
        self.world = World(self.random)
        self.processes: list[Process] = []
        self.numbers = itertools.count(1)
        often = (self._back_up, self._back_up, self._collect, self._collect, self._delete)
        self._kinds = (*often, *often, *often, self._verify, self._rotation)
        self._rotate()

    def run(self) -> None:
        """Let things happen."""
        while self.world.requests < REQUESTS:
            self._happen()
            self.world.time += self._pause()

    def meet(self) -> None:
        """One run, the deletion of what it refers to, and a collection, each stopped anywhere."""
        self._finish(self._start(self._back_up))
        self.world.time += GRACE + 2
        writer = self._start(self._back_up)
        writer.go(self.random.randrange(30))
        self._sleep()
        self._finish(self._start(self._delete))
        self._sleep()
        both = [writer, self._start(self._collect)]
        self.random.shuffle(both)
        for process in both * 2:
            process.go(self.random.choice((self.random.randrange(30), 100)))
            self._sleep()

    def two_collectors_meet(self) -> None:
        """What is kept, because a commit came late, is looked at by two; then that backup goes as well."""
        self._finish(self._start(self._back_up))
        self.world.time += GRACE + 2
        late = self._start(self._back_up)
        late.go_until("put manifests")
        self._finish(self._start(self._delete))
        self._finish(late)
        self.world.time += GRACE + 2

        keeper, deleter = self._start(self._collect), self._start(self._collect)
        keeper.go_until("list packs")
        deleter.go_until("get manifests")
        writer = self._start(self._back_up)
        writer.go_until("list bad")
        self._finish(self._start(self._delete))
        for process in (keeper, writer, deleter):
            self._finish(process)

    def a_deletion_meets_a_late_commit(self) -> None:
        """The collector looked before the commit and deletes while the writer looks again."""
        self._finish(self._start(self._back_up))
        self.world.time += GRACE + 2
        late = self._start(self._back_up)
        late.go_until("put manifests")
        self._finish(self._start(self._delete))
        self.world.time += GRACE + 2
        deleter = self._start(self._collect)
        deleter.go_until("delete packs", "delete lists")
        late.go_until("list bad")
        for process in (deleter, late):
            self._finish(process)

    def finish(self) -> None:
        """Let everybody come to an end."""
        for process in list(self.processes):
            self._finish(process)

    def _sleep(self) -> None:
        self.world.time += self.random.choice((0.0, 0.0, GRACE + 2))

    def rest(self) -> None:
        """Let things come to rest, and see what is left."""
        self.finish()
        self._collect_all()
        self._only_what_is_named_is_left()
        for name in [name for name in self.world.objects if name.startswith("manifests/")]:
            self.world.forget(name)
            del self.world.objects[name]
        self._collect_all()
        self._nothing_is_left()

    def _happen(self) -> None:
        chance = self.random.random()
        awake = [process for process in self.processes if not process.asleep]
        for process in self.processes:
            process.asleep = max(0, process.asleep - 1)
        if awake and chance < 0.8:
            process = self.random.choice(awake)
            # Whole runs beside sleeping ones are where it is dangerous.
            for _ in range(self.random.choice((1, 5, 50))):
                process.go(0 if process.asleep else 1)
            if process.done:
                self.processes.remove(process)
        elif self.processes and chance < 0.81:
            self._kill(self.random.choice(self.processes))
        elif len(self.processes) < 6:
            self._start(self.random.choice(self._kinds))

    def _pause(self) -> float:
        chance = self.random.random()
        if chance < 0.85:
            return self.random.random() * 0.1
        return self.random.random() * 6 if chance < 0.97 else self.random.uniform(10.0, 30.0)

    def _start(self, body: Callable[[Process], None]) -> Process:
        process = Process(self.random.uniform(-SKEW, SKEW), body)
        self.processes.append(process)
        return process

    def _kill(self, process: Process) -> None:
        self.processes.remove(process)
        process.kill()

    def _finish(self, process: Process) -> None:
        while not process.done:
            process.step()
        self.processes.remove(process)

    # What happens

    def _back_up(self, process: Process) -> None:
        """`prepare`, `archive` and `upload`, as far as the store sees them."""
        view, world, started = View(self.world, process), self.world, self.world.time
        bad = dict(world.marked)
        base = self._base(view)
        refused = collector.unusable(view)
        old = [ref for ref in base.packs if names.pack(ref.id) not in refused] if base else []
        old = [ref for ref in old if self.random.random() < 0.8]
        kept = [ref for ref in base.lists if names.index_pack(ref.id) not in refused] if base else []
        packs, lists = [self._new() for _ in range(self.random.randrange(3))], [self._new()]
        own = {names.pack(ref.id) for ref in packs} | {names.index_pack(lists[0].id)}
        for name in sorted(own, reverse=True):
            view.put(name, b"x" * LENGTH, Digest(LENGTH, SHA256))
        manifest = self._manifest((*old, *packs), (*kept[:1], *lists))
        name, data = names.manifest(manifest.backup_id), json.dumps(document(manifest)).encode()
        try:
            if self.rules.recheck:
                collector.check_references(view, manifest, own, world.time - started, MAX_RUN)
            view.put(name, data, digest_of(data))
            if world.time - started <= MAX_RUN:
                world.count(name, manifest)
            elif self.rules.recheck:
                world.seen["committed late"] += 1
                collector.check_committed(view, manifest)
        except Failure:
            world.seen["refused"] += 1
            return
        world.count(name, manifest)
        world.seen["backed up"] += 1
        world.seen["referred to older"] += bool(old)
        if any(one in bad for one in (ref.id for ref in old)):
            raise Broken(f"{name} refers to a pack that was known to be damaged")

    def _base(self, view: View) -> Manifest | None:
        found = list(view.entries("manifests"))
        for entry in reversed(found):
            try:
                manifest = parse(read(view, entry.name, 1 << 20))
            except NotFoundError:
                continue
            if manifest.encryption.key_id == self.world.key:
                return manifest
        return None

    def _delete(self, process: Process) -> None:
        """The stage `delete`, of any backup: also of the one that a run refers to just now."""
        view = View(self.world, process)
        manifests = [entry.name for entry in view.entries("manifests")]
        if manifests:
            view.delete(self.random.choice((manifests[-1], self.random.choice(manifests))))
            self._collecting(lambda: collector.mark(view, grace=self.rules.grace))

    def _collect(self, process: Process) -> None:
        """Of the operator, of another cluster, of the command line: the same."""
        view = View(self.world, process)
        self._collecting(lambda: collector.collect(view, grace=self.rules.grace))

    def _collecting(self, collect: Callable[[], object]) -> None:
        try:
            collect()
        except Failure:
            # It slept so long that another one took its clock for what a dead one left.
            self.world.seen["collection failed"] += 1

    def _verify(self, process: Process) -> None:
        view = View(self.world, process)
        manifest = self._base(view)
        if manifest is not None:
            name = self.random.choice(sorted(named(manifest)))
            collector.mark_bad(view, name, "2026-01-01T00:00:00Z")

    def _rotation(self, _process: Process) -> None:
        self._rotate()

    def _rotate(self) -> None:
        self.world.key = f"{next(self.numbers):016x}"
        name = f"keys/{self.world.key}.none"
        self.world.objects[name] = Stored(b"", self.world.time, self.world.time)

    def _new(self) -> ObjectRef:
        return dataclasses.replace(SOME, id=self.new_id())

    def new_id(self) -> str:
        """Return an id that the same seed makes again."""
        return f"{self.random.getrandbits(128):032x}"

    def _manifest(self, packs: tuple[ObjectRef, ...], lists: tuple[ObjectRef, ...]) -> Manifest:
        return dataclasses.replace(
            TEMPLATE,
            backup_id=f"acme_{next(self.numbers):08d}",
            encryption=dataclasses.replace(TEMPLATE.encryption, key_id=self.world.key),
            packs=packs,
            lists=lists,
            catalogue=CataloguePlace(lists[-1].id, 0, 1),
        )

    # At rest

    def _collect_all(self) -> None:
        """Two collections, a grace apart, long after the last write."""
        for _ in range(2):
            self.world.time += GRACE + 2 * SKEW + 1
            self._finish(self._start(self._collect))

    def _left(self) -> set[str]:
        return {name for name in self.world.objects if not name.startswith(("keys/", "manifests/"))}

    def _only_what_is_named_is_left(self) -> None:
        manifests = [parse(there.data) for name, there in self.world.objects.items() if "manifests/" in name]
        needed = {name for manifest in manifests for name in named(manifest)}
        ids = {name.rsplit("/", 1)[-1] for name in needed}
        for name in self._left() - needed:
            # A mark stays with what it marks; so does a gc object while a backup needs what it names.
            marks_one = name.startswith("bad/") and name.removeprefix("bad/") in ids
            listed = json.loads(self.world.objects[name].data)["objects"] if name.startswith("gc/") else ()
            if not marks_one and not needed.intersection(listed):
                raise Wasted(f"{name} is left and no backup needs it")

    def _nothing_is_left(self) -> None:
        if self._left():
            raise Wasted(f"{self._left()} is left and there is no backup")


Scenario = Callable[["Model"], None]


def explore(scenario: Scenario, seeds: range, rules: Rules = Rules(), *, rest: bool = True) -> Counter[str]:
    """Run histories; return what happened in them. Raises what is broken with the seed."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        model = Model(seed, rules)
        try:
            with mock.patch.object(names, "new_id", model.new_id):
                scenario(model)
                model.finish()
                if rest:
                    model.rest()
        except Broken as error:
            raise type(error)(f"seed {seed}: {error}") from error
        finally:
            for process in list(model.processes):
                model._kill(process)
        seen += model.world.seen
        seen["requests"] += model.world.requests
    return seen


def test_no_order_of_events_loses_a_backup_or_leaves_waste() -> None:
    """Tens of thousands of requests; and all that may happen does happen."""
    seen = explore(Model.run, range(HISTORIES))

    print(dict(seen))
    assert seen["requests"] > 20_000
    for what in ("backed up", "referred to older", "refused", "committed late", "deleted"):
        assert seen[what] > 10, what


def test_a_run_and_a_collection_that_meet_anywhere_lose_no_backup() -> None:
    """While what the run refers to is deleted."""
    seen = explore(Model.meet, range(MEETINGS))

    print(dict(seen))
    assert min(seen["backed up"], seen["refused"], seen["deleted"], seen["committed late"]) > 10


def test_two_collections_that_meet_lose_no_backup() -> None:
    """Neither knows of the other, and one is slow."""
    assert explore(Model.two_collectors_meet, range(10))["backed up"] >= 20


def test_a_commit_that_comes_too_late_is_not_called_a_backup() -> None:
    """When what it refers to is being deleted."""
    seen = explore(Model.a_deletion_meets_a_late_commit, range(10))

    assert (seen["committed late"], seen["refused"]) == (10, 10)


Patch = pytest.MonkeyPatch


def deletes_at_once(patch: Patch) -> Rules:
    """No grace after an object was named."""
    survey = collector._survey

    def deleting(objects: collector.Objects, before: float) -> Any:
        return dataclasses.replace(survey(objects, before), doomed=survey(objects, math.inf).doomed)

    patch.setattr(collector, "_survey", deleting)
    return Rules()


def deletes_without_asking_again(patch: Patch) -> Rules:
    """No second look at the manifests."""
    patch.setattr(collector, "_doomed", lambda listed, _named, _unnamed, _marks: list(listed))
    return Rules()


def names_what_is_young(patch: Patch) -> Rules:
    """No age of packs."""
    entries = collector._packs_and_lists
    patch.setattr(
        collector,
        "_packs_and_lists",
        lambda objects: (dataclasses.replace(entry, modified=0.0) for entry in entries(objects)),
    )
    return Rules()


def waits_less_than_a_run_may_last(_patch: Patch) -> Rules:
    """The grace is too short."""
    return Rules(grace=MAX_RUN / 4)


def commits_without_looking(_patch: Patch) -> Rules:
    """No check, neither before the commit nor after a late one."""
    return Rules(recheck=False)


def believes_a_late_commit(patch: Patch) -> Rules:
    """No check after a commit that came too late."""
    patch.setattr(collector, "check_committed", lambda _objects, _manifest: None)
    return Rules()


def forgets_what_it_kept(patch: Patch) -> Rules:
    """The gc object goes although something it names is still there."""
    survey = collector._survey

    def forgetting(objects: collector.Objects, before: float) -> Any:
        due = tuple(entry.name for entry in objects.entries("gc") if entry.modified < before)
        return dataclasses.replace(survey(objects, before), finished=due)

    patch.setattr(collector, "_survey", forgetting)
    return Rules()


def refers_to_what_is_damaged(patch: Patch) -> Rules:
    """What verification marked is not looked at."""
    marked = collector._marked

    def without_bad(objects: collector.Objects) -> Iterator[str]:
        bad = {entry.name.removeprefix("bad/") for entry in objects.entries("bad")}
        return (one for one in marked(objects) if one not in bad)

    patch.setattr(collector, "_marked", without_bad)
    return Rules()


MUTANTS = (
    (deletes_at_once, Model.meet),
    (deletes_without_asking_again, Model.meet),
    (names_what_is_young, Model.run),
    (waits_less_than_a_run_may_last, Model.run),
    (commits_without_looking, Model.meet),
    (believes_a_late_commit, Model.meet),
    (refers_to_what_is_damaged, Model.run),
    (forgets_what_it_kept, Model.two_collectors_meet),
)


@pytest.mark.parametrize(("mutant", "scenario"), MUTANTS)
def test_each_rule_is_needed(
    mutant: Callable[[Patch], Rules], scenario: Scenario, monkeypatch: Patch
) -> None:
    """Without it some history is broken."""
    rules = mutant(monkeypatch)
    with pytest.raises(Broken) as caught:
        explore(scenario, range(MEETINGS), rules, rest=False)
    print(caught.value)
