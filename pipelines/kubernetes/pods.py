"""Pods: containers with their mounts, checks, waiting and security, from one composed container and its row."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Final

from pipelines.kubernetes.composed import Container, Mount, listing
from pipelines.kubernetes.table import DONE, NOT_HERE, ROWS, SECRETS, Row

SETTINGS: Final = "minimart-settings"
SERVING: Final = "minimart-serving"
OURS: Final = ("minimart-serving", "minimart-pipelines")
STAYS: Final = {"kafka", "redis", "postgres", "objects", "clickhouse", "prometheus", "alertmanager", "grafana"}
START_S: Final = 300  # a part may take to come up before it is started again

# Each argument is host:port, to be reached, or a file, to be there.
WAIT: Final = """
import os, socket, sys, time
def there(what):
    if what.startswith('/'):
        return os.path.exists(what)
    host, port = what.rsplit(':', 1)
    try:
        socket.create_connection((host, int(port)), 2).close()
        return True
    except OSError:
        return False
for what in sys.argv[1:]:
    while not there(what):
        print('waits for', what, flush=True)
        time.sleep(2)
""".strip()

NO_RIGHTS: Final[dict[str, Any]] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def dns(name: str) -> str:
    """A name of docker-compose.yml as Kubernetes allows it."""
    return name.replace("_", "-")


def is_ours(container: Container) -> bool:
    """Whether it runs our code and reads our settings."""
    return container.image.startswith(OURS)


def pod(container: Container, *, before: tuple[Container, ...] = ()) -> dict[str, Any]:
    """A pod's spec: what it waits for, then `before` one after the other, then the container itself."""
    row = ROWS[container.name]
    everyone = (*before, container)
    waits = _waits(everyone)
    inits = [_waiting(waits, everyone, row)] if waits else []
    inits += [_one(each, ROWS[each.name], probes=False) for each in before]
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": max(container.grace_s, 15),
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": row.user, "runAsGroup": row.user, "fsGroup": row.user,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_one(container, row, probes=row.kind in ("service", "store"))],
        "volumes": _volumes(everyone),
    }  # fmt: skip
    if inits:
        spec["initContainers"] = inits
    if row.kind == "job":
        spec["restartPolicy"] = "OnFailure"
    return spec


def _one(container: Container, row: Row, *, probes: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": dns(container.name),
        "image": container.image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": NO_RIGHTS | {"readOnlyRootFilesystem": row.read_only},
        "resources": {
            "requests": {"cpu": f"{row.cpu}m", "memory": _half(container.memory)},
            "limits": {"memory": container.memory},
        },
        "volumeMounts": [*(_mounted(mount) for mount in container.mounts), *_scratch(container)],
    }
    if container.entrypoint:
        out["command"] = list(container.entrypoint)
    if container.command:
        out["args"] = list(container.command)
    if is_ours(container):
        out["envFrom"] = [{"configMapRef": {"name": SETTINGS}}]
    if container.environment:
        out["env"] = [{"name": key, "value": value} for key, value in container.environment.items()]
    if row.ports:
        names = ("http", "grpc", "metrics")[:len(row.ports)] if len(row.ports) > 1 else ("main",)
        out["ports"] = [{"name": name, "containerPort": port} for name, port in zip(names, row.ports, strict=True)]
    return out | (_probes(container, row) if probes else {})


def _probes(container: Container, row: Row) -> dict[str, Any]:
    """Ours are asked over HTTP; others by the check that compose uses."""
    if container.image.startswith(OURS):
        ready = {"httpGet": {"path": "/readyz", "port": row.ports[0]}, "periodSeconds": 5, "timeoutSeconds": 3}
        alive = {"httpGet": {"path": "/livez", "port": row.ports[0]}, "periodSeconds": 10, "timeoutSeconds": 5}
    else:
        ready = {"exec": {"command": list(container.check)}, "periodSeconds": 10, "timeoutSeconds": 5}
        alive = {"tcpSocket": {"port": row.ports[0]}, "periodSeconds": 10, "timeoutSeconds": 5}
    start = {"tcpSocket": {"port": row.ports[0]}, "periodSeconds": 5, "failureThreshold": START_S // 5}
    return {"readinessProbe": ready, "livenessProbe": alive | {"failureThreshold": 6}, "startupProbe": start}


def _waits(containers: tuple[Container, ...]) -> list[str]:
    """What must answer, or exist, before: from `depends_on`, without what the pod does itself."""
    inside = {container.name for container in containers}
    out: list[str] = []
    for container in containers:
        for other, condition in container.waits_for.items():
            other = "recommender" if other == "balancer" else other
            if other in inside or other in NOT_HERE:
                continue
            row = ROWS[other]
            if condition == "service_healthy":
                out.append(f"{dns(other)}:{row.ports[0]}")
            elif row.part_of and row.part_of not in DONE:
                continue  # it has ended before that part answers
            else:
                out += _evidence(other, container)
    return list(dict.fromkeys(out))


def _evidence(job: str, container: Container) -> list[str]:
    volumes = {mount.source for mount in container.mounts}
    found = [path for volume, path in DONE.get(job, ()) if volume in volumes]
    return found[:1] if found else ["recommender:8082"] if job == "welcome" else []


def _waiting(waits: list[str], everyone: tuple[Container, ...], row: Row) -> dict[str, Any]:
    folders = {path.rsplit("/", 1)[0] for path in waits if path.startswith("/")}
    mounts = [m for container in everyone for m in container.mounts if m.target in folders]
    image = next((one.image for one in everyone if is_ours(one)), f"{SERVING}:latest")
    return {
        "name": "wait", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-Ic", WAIT, *waits],
        "securityContext": NO_RIGHTS | {"readOnlyRootFilesystem": True},
        "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [_mounted(mount) for mount in dict.fromkeys(mounts)],
    }  # fmt: skip


def files_name(container: str) -> str:
    """The ConfigMap that holds the project's files that this container reads."""
    return f"{dns(container)}-files"


def key_of(source: str) -> str:
    """The name of a file within its ConfigMap; a folder gets one ConfigMap of its own, see folder_name."""
    return PurePosixPath(source).name


def folder_name(source: str) -> str:
    """The ConfigMap of a folder of the project, or of one of its sub-folders."""
    return re.sub(r"[^a-z0-9]+", "-", source.removeprefix("./deploy/").lower()).strip("-")


def is_folder(source: str) -> bool:
    """Whether a mounted path of the project is a folder: files have an ending."""
    return not PurePosixPath(source).suffix


def _mounted(mount: Mount) -> dict[str, Any]:
    if mount.is_file and not is_folder(mount.source):
        return {"name": "files", "mountPath": mount.target, "subPath": key_of(mount.source), "readOnly": True}
    out: dict[str, Any] = {"name": _volume_name(mount), "mountPath": mount.target}
    if mount.source in STAYS:
        out["subPath"] = "data"  # a new disk has a folder of its own at the top, which Kafka and Postgres refuse
    if mount.read_only or mount.source in SECRETS or mount.is_file:
        out["readOnly"] = True
    return out


def _volume_name(mount: Mount) -> str:
    return folder_name(mount.source) if mount.is_file else dns(mount.source)


def _scratch(container: Container) -> list[dict[str, Any]]:
    taken = {mount.target for mount in container.mounts}
    wanted = dict.fromkeys(["/tmp", *container.scratch])
    out = [{"name": "tmp", "mountPath": path} for path in wanted if path not in taken]
    return out + ([{"name": "shm", "mountPath": "/dev/shm"}] if container.shared_memory else [])


def _volumes(containers: tuple[Container, ...]) -> list[dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {"tmp": {"emptyDir": {"sizeLimit": "1Gi"}}}
    for container in containers:
        if container.shared_memory:
            out["shm"] = {"emptyDir": {"medium": "Memory", "sizeLimit": container.shared_memory}}
        for mount in container.mounts:
            if mount.source in SECRETS:
                out[mount.source] = {"secret": {"secretName": SECRETS[mount.source], "defaultMode": 0o440}}
            elif mount.is_file and is_folder(mount.source):
                items = [{"key": path.replace("/", "."), "path": path} for path in listing(mount.source)]
                name = folder_name(mount.source)
                out[name] = {"configMap": {"name": name, "items": items}}
            elif mount.is_file:
                out["files"] = {"configMap": {"name": files_name(container.name), "defaultMode": 0o444}}
            elif mount.source not in STAYS:
                out[dns(mount.source)] = {"persistentVolumeClaim": {"claimName": dns(mount.source)}}
    return [{"name": name, **source} for name, source in out.items()]


def _half(memory: str) -> str:
    return f"{int(memory[:-2]) * (1024 if memory.endswith('Gi') else 1) // 2}Mi"
