"""Where volumes are in use: what is ReadWriteOnce can be used on that node only."""

from __future__ import annotations

from collections.abc import Collection

from tenant_backup.cluster import POD, Cluster, Object


async def node_of(cluster: Cluster, namespace: str, claims: Collection[str]) -> str:
    """Return where a pod runs that uses one of the claims, nothing if none does. Raises a ClusterError."""
    if not claims:
        return ""
    pods = await cluster.list(POD, namespace, fields="status.phase=Running")
    found = (pod["spec"]["nodeName"] for pod in pods if not _claims(pod).isdisjoint(claims))
    return min(found, default="")


def _claims(pod: Object) -> set[str]:
    mounted = [volume.get("persistentVolumeClaim", {}) for volume in pod["spec"].get("volumes", ())]
    return {claim["claimName"] for claim in mounted if claim}
