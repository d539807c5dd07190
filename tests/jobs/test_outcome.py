"""Reading Jobs back: the root cause among containers, and why pods do not start."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.contract.results import Result, encode
from tenant_backup.decisions.observed import JobSeen
from tenant_backup.jobs.outcome import how_it_ended, see
from tests.decisions.objects import FACTS, NOW

BORN = "2024-01-15T14:30:25Z"


def ended(name: str, code: int, result: Result | None = None, reason: str = "") -> dict[str, Any]:
    """A container that ended, with its termination message."""
    message = encode(result).decode() if result else ""
    word = reason or ("Completed" if code == 0 else "Error")
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message, "reason": word}}}


def failed(reason: Reason, message: str = "no", *, retriable: bool = False) -> Result:
    """What a stage says."""
    return Result(False, {}, reason, message, retriable)


PEER = failed(Reason.PEER_FAILED, "container x ended", retriable=True)
OK = Result(True, {})


def pod(phase: str, *containers: dict[str, Any], **status: Any) -> dict[str, Any]:
    """A pod of a backup."""
    return {
        "metadata": {"name": "p", "namespace": "n", "creationTimestamp": BORN},
        "status": {"phase": phase, "containerStatuses": list(containers), **status},
    }


def job(**status: Any) -> dict[str, Any]:
    """A backup's Job."""
    labels = {"tenantbackup.dev/purpose": "backup", "tenantbackup.dev/attempt": "1"}
    metadata = {"name": "j", "uid": "u", "creationTimestamp": BORN, "labels": labels}
    return {"metadata": metadata, "spec": {"backoffLimit": 2}, "status": status}


def look(*pods: dict[str, Any], seconds: float = 1, warnings: Any = (), **status: Any) -> JobSeen:
    """What is seen of a Job with these pods."""
    return see(job(**status), pods, NOW + timedelta(seconds=seconds), warnings=warnings)


def test_the_facts_are_uploads() -> None:
    """The other containers have facts of their own."""
    found = how_it_ended(
        pod("Succeeded", ended("dump", 0, Result(True, {"x": 1})), ended("upload", 0, Result(True, FACTS))),
        "backup",
    )
    assert found.ok
    assert found.facts == FACTS


def test_what_was_placed_is_told_by_volume() -> None:
    """Beside what `load` says; a restore of files alone has no `load`."""
    placed = {"files": 7, "bytes": 70, "skipped": []}
    loaded, answer = {"restored": {"tables": 1}}, Result(True, placed)
    both = pod("Succeeded", ended("load", 0, Result(True, loaded)), ended("place-uploads", 0, answer))
    assert how_it_ended(both, "restore").facts == loaded | {"placed": {"uploads": placed}}
    alone = pod("Succeeded", ended("open", 0, OK), ended("place-uploads", 0, answer))
    assert how_it_ended(alone, "restore").facts == {"placed": {"uploads": placed}}
    walked = pod("Succeeded", ended("survey-uploads", 0, answer))
    assert how_it_ended(walked, "preflight").facts == {"volumes": {"uploads": placed}}


def test_a_pod_whose_containers_have_all_ended_is_over_whatever_its_phase_says() -> None:
    """The kubelet changes the phase seconds later."""
    containers = [ended("dump", 0, OK), ended("archive", 0, OK), ended("upload", 0, Result(True, FACTS))]
    seen = look(pod("Running", *containers))
    assert seen.outcome is not None
    assert (seen.outcome.ok, seen.outcome.facts, seen.running) == (True, FACTS, False)


def test_a_pod_with_a_container_that_still_runs_is_not_over() -> None:
    """Upload speaks last."""
    running = {"name": "upload", "state": {"running": {"startedAt": BORN}}}
    assert look(pod("Running", ended("dump", 0, OK), ended("archive", 0, OK), running)).outcome is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_root_cause_is_the_one_that_blames_nobody(order: tuple[int, ...]) -> None:
    """In whichever order the kubelet lists the containers."""
    all_of_them = [
        ended("dump", 64, failed(Reason.DATABASE_NOT_FOUND, 'database "app" does not exist')),
        ended("archive", 76, PEER),
        ended("upload", 76, PEER),
    ]
    found = how_it_ended(pod("Failed", *(all_of_them[index] for index in order)), "backup")
    assert (found.reason, found.retriable) == (Reason.DATABASE_NOT_FOUND, False)
    assert found.message == 'database "app" does not exist'


def test_a_killed_container_is_named() -> None:
    """It could say nothing; the others say only that it went away."""
    found = how_it_ended(
        pod("Failed", ended("dump", 76, PEER), ended("archive", 137), ended("upload", 76, PEER)), "backup"
    )
    assert (found.reason, found.retriable) == (Reason.STAGE_KILLED, True)
    assert "archive" in found.message


def test_a_container_without_memory_is_told_apart() -> None:
    """The message says what to change."""
    found = how_it_ended(
        pod("Failed", ended("archive", 137, reason="OOMKilled"), ended("dump", 76, PEER)), "backup"
    )
    assert "memory" in found.message


def test_a_named_cause_comes_before_an_inferred_one() -> None:
    """The store was full; that another container was killed then is its consequence."""
    full = failed(Reason.STORE_FULL, "no space", retriable=True)
    found = how_it_ended(pod("Failed", ended("dump", 137), ended("upload", 75, full)), "backup")
    assert found.reason == Reason.STORE_FULL


def test_a_stop_order_is_the_last_thing_to_blame() -> None:
    """Every container gets one when a pod is evicted."""
    stopped = failed(Reason.CANCELLED, "asked to stop", retriable=True)
    found = how_it_ended(pod("Failed", ended("dump", 75, stopped), ended("archive", 137)), "backup")
    assert found.reason == Reason.STAGE_KILLED


def test_success_of_the_pod_is_not_success_when_a_container_says_no() -> None:
    """Words and exit codes must agree: neither alone is a backup."""
    liar = ended("upload", 1, Result(True, FACTS))
    found = how_it_ended(pod("Failed", liar), "backup")
    assert (found.ok, found.reason) == (False, Reason.STAGE_KILLED)
    other = ended("upload", 0, failed(Reason.STORE_FULL))
    assert how_it_ended(pod("Succeeded", other), "backup").facts == {}


def test_an_init_container_can_be_the_cause() -> None:
    """`prepare` looks at the store first."""
    waiting = {"name": "dump", "state": {"waiting": {"reason": "PodInitializing"}}}
    prepare = ended("prepare", 64, failed(Reason.STORE_FOREIGN, "another cluster's"))
    found = how_it_ended(pod("Failed", waiting, initContainerStatuses=[prepare]), "backup")
    assert found.reason == Reason.STORE_FOREIGN


def test_an_evicted_pod_says_so() -> None:
    """No container had the time."""
    found = how_it_ended(pod("Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}]), "backup")
    assert "evicted" in found.message
    assert found.retriable


def test_the_newest_pod_that_ended_speaks() -> None:
    """Earlier tries are counted."""
    first, second = (
        pod("Failed", ended("dump", 75, failed(Reason.DUMP_FAILED, retriable=True))),
        pod("Running"),
    )
    second["metadata"]["creationTimestamp"] = "2024-01-15T14:31:00Z"
    found = look(second, first, failed=1)
    assert (found.pods, found.ended) == (2, 1)
    assert found.outcome
    assert found.outcome.reason == Reason.DUMP_FAILED


def test_a_pod_without_node_is_unschedulable() -> None:
    """In the scheduler's words."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient memory.",
        "lastTransitionTime": BORN,
    }
    found = look(pod("Pending", conditions=[condition])).trouble
    assert found
    assert found.reason == Reason.UNSCHEDULABLE
    assert "Insufficient memory" in found.message
    condition["message"] = 'persistentvolumeclaim "backups" not found'
    other = look(pod("Pending", conditions=[condition])).trouble
    assert other
    assert other.reason == Reason.VOLUME_UNAVAILABLE


def waiting(reason: str, message: str) -> dict[str, Any]:
    """A container that waits."""
    return {"name": "dump", "image": "runner:1", "state": {"waiting": {"reason": reason, "message": message}}}


def test_an_image_that_cannot_be_pulled_has_one_wording() -> None:
    """The kubelet alternates between two; the status must not."""
    cause = "failed to resolve image: not found"
    texts = [
        look(pod("Pending", waiting("ErrImagePull", cause))).trouble,
        look(
            pod(
                "Pending",
                waiting("ImagePullBackOff", f'Back-off pulling image "runner:1": ErrImagePull: {cause}'),
            )
        ).trouble,
    ]
    assert texts[0]
    assert texts[0] == texts[1]
    assert texts[0].reason == Reason.IMAGE_PULL_FAILED
    assert texts[0].message == f"image runner:1 cannot be pulled: {cause}"


def test_a_volume_that_cannot_be_mounted_is_found_in_events() -> None:
    """The pod itself says only ContainerCreating."""
    event = {"reason": "FailedMount", "message": "MountVolume.SetUp failed"}
    found = look(pod("Pending", waiting("ContainerCreating", "")), warnings=[event]).trouble
    assert found
    assert found.reason == Reason.VOLUME_UNAVAILABLE


def test_a_job_whose_pods_are_refused_says_why() -> None:
    """Quota, admission: no pod ever appears."""
    found = look(warnings=[{"reason": "FailedCreate", "message": "exceeded quota"}]).trouble
    assert found
    assert "exceeded quota" in found.message


def test_a_namespace_that_refuses_a_privileged_volume_is_told_how_to_allow_it() -> None:
    """The first words say what to do; the server's follow."""
    line = (
        'pods "b1-restore-0" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities'
        ' (container "place-uploads" must not include "CHOWN" in securityContext.capabilities.add),'
        ' runAsNonRoot != true (container "place-uploads" must not set securityContext.runAsNonRoot=false)'
    )
    event = {"reason": "FailedCreate", "message": line, "metadata": {"namespace": "acme"}}
    found = look(warnings=[event]).trouble
    assert found
    assert "privileged: true in spec.files of the Tenant needs a namespace that allows it" in found.message
    assert "kubectl label --overwrite ns acme pod-security.kubernetes.io/enforce=baseline" in found.message
    assert found.message.endswith(line)


def test_a_pod_that_is_being_deleted_for_long_has_lost_its_node() -> None:
    """The node's kubelet is the one who would end it."""
    dying = pod("Running", {"name": "dump", "state": {"running": {}}})
    dying["metadata"]["deletionTimestamp"] = BORN
    assert not look(dying, seconds=30).node_lost
    assert look(dying, seconds=61).node_lost


def test_the_job_controllers_verdict_is_read() -> None:
    """With its reason."""
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    found = look(conditions=[condition], failed=3)
    assert (found.finished, found.failure, found.ended) == ("Failed", "DeadlineExceeded", 3)
