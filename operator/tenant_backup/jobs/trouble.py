"""Why a pod cannot start, in words: no node, no image, no volume. Seconds instead of silence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.instants import parse
from tenant_backup.decisions.observed import Trouble

Object = Mapping[str, Any]
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_CREATION = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_VOLUME_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")


def why_it_cannot_start(
    created: datetime, living: list[Object], any_pod: bool, warnings: list[Object]
) -> Trouble | None:
    """Return what keeps the newest pod from starting, or None. `created` is when the Job was made."""
    if not any_pod:
        return _no_pod(created, warnings)
    if not living:
        return None
    pod = living[-1]
    return _no_node(pod) or _no_container(pod) or _no_volume(pod, warnings)


def _no_pod(created: datetime, warnings: list[Object]) -> Trouble | None:
    event = next((event for event in warnings if event.get("reason") == "FailedCreate"), None)
    if event is None:
        return None
    line = _one_line(event.get("message", ""))
    return Trouble(Reason.UNSCHEDULABLE, f"no pod can be created: {_advice(event, line)}{line}", created)


def _advice(event: Object, line: str) -> str:
    """Return what to do when the namespace refuses the rights of a volume; else Jobs ask for none."""
    if "PodSecurity" not in line or "runAsNonRoot" not in line:
        return ""
    namespace = event.get("metadata", {}).get("namespace", "NAMESPACE")
    allow = f"kubectl label --overwrite ns {namespace} pod-security.kubernetes.io/enforce=baseline"
    needs = "privileged: true in spec.files of the Tenant needs a namespace that allows it"
    return f"{needs} ({allow}), or remove it: "


def _no_node(pod: Object) -> Trouble | None:
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = _one_line(condition.get("message", ""))
            # Claims that do not exist or are not bound are reported by the scheduler.
            reason = (
                Reason.VOLUME_UNAVAILABLE
                if "persistentvolumeclaim" in message.lower()
                else Reason.UNSCHEDULABLE
            )
            return Trouble(reason, f"no node takes the pod: {message}", _since(pod, condition))
    return None


def _no_container(pod: Object) -> Trouble | None:
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        message = _one_line(waiting.get("message", "")) or waiting.get("reason", "")
        if waiting.get("reason") in _IMAGE:
            # The kubelet alternates between two wordings of one cause: a status must not.
            cause = re.sub(r"^Back-off pulling image .*?: (Err\w+: )?|^Back-off pulling image.*", "", message)
            text = f"image {container.get('image', '')} cannot be pulled: {cause or 'the node has tried'}"
            return Trouble(Reason.IMAGE_PULL_FAILED, text, _born(pod))
        if waiting.get("reason") in _CREATION:
            text = f"container {container['name']} cannot be created: {message}"
            return Trouble(Reason.UNSCHEDULABLE, text, _born(pod))
    return None


def _no_volume(pod: Object, warnings: list[Object]) -> Trouble | None:
    started = any(
        "waiting" not in container.get("state", {"waiting": {}})
        for container in (
            *pod.get("status", {}).get("initContainerStatuses", ()),
            *pod.get("status", {}).get("containerStatuses", ()),
        )
    )
    event = next((event for event in warnings if event.get("reason") in _VOLUME_EVENTS), None)
    if started or event is None:
        return None
    message = f"a volume cannot be mounted: {_one_line(event.get('message', ''))}"
    return Trouble(Reason.VOLUME_UNAVAILABLE, message, _born(pod))


def _born(pod: Object) -> datetime:
    born = parse(pod["metadata"]["creationTimestamp"])
    assert born
    return born


def _since(pod: Object, condition: Object) -> datetime:
    return parse(condition.get("lastTransitionTime")) or _born(pod)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()[:500]
