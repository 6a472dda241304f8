"""All manifests of deploy/k8s/base: file name -> objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from adapters.errors import Misconfigured
from pipelines.kubernetes import composed, pods
from pipelines.kubernetes.composed import Container, listing
from pipelines.kubernetes.pods import dns, folder_name, is_folder, key_of
from pipelines.kubernetes.table import NOT_HERE, ROWS, SIZES
from settings import ROOT

Object = dict[str, Any]
APP: Final = {"app.kubernetes.io/part-of": "minimart"}
SCALED: Final = ("recommender", "feature_server", "stream_features")  # Prometheus reads each of their pods
FULL_AT: Final = "8"  # requests in flight in one recommender, half of what it takes
PROMETHEUS: Final = "./deploy/compose/prometheus.yml"


def manifests() -> dict[str, list[Object]]:
    """Read docker-compose.yml and give every file. Raises Misconfigured for a service that table.py does not know."""
    found = composed.read()
    if unknown := sorted(found.keys() - ROWS.keys() - NOT_HERE.keys()):
        raise Misconfigured(f"docker-compose.yml has {unknown}: give each a row in pipelines/kubernetes/table.py")
    here = {name: one for name, one in found.items() if name not in NOT_HERE}
    out: dict[str, list[Object]] = {
        "settings.yaml": [_config_map(pods.SETTINGS, _settings())],
        "volumes.yaml": [_claim(name) for name in _shared_volumes(here)],
        "network.yaml": _network(here),
    }
    for name, one in here.items():
        if ROWS[name].kind != "init":
            out[f"{dns(name)}.yaml"] = _files(one, here) + _part(one, here)
    return out


def _settings() -> dict[str, str]:
    """The shared settings, with the names that the neighbours have here."""
    host = re.compile(r"(?<=//)[a-z_]+(?=:)")
    return {
        key: host.sub(lambda found: dns(found.group()), value) for key, value in composed.shared_settings().items()
    }


def _part(container: Container, here: dict[str, Container]) -> list[Object]:
    row = ROWS[container.name]
    before = tuple(here[name] for name, other in ROWS.items() if other.part_of == container.name and name in here)
    spec = pods.pod(container, before=before)
    if row.kind == "job":
        job = {"backoffLimit": 10, "template": _template(container, spec)}
        return [_object("batch/v1", "Job", container.name, job)]
    objects = [_workload(container, spec), _service(container)]
    if container.name in SCALED:
        objects.append(_service(container, f"{dns(container.name)}-pods", headless=True))
    if container.name == "recommender":
        objects += [_service(container, "balancer"), _autoscaler()]
    if row.copies > 1 or container.name in ("collector", "shop", "stream_features"):
        objects.append(_budget(container.name))
    return objects


def _workload(container: Container, spec: Object) -> Object:
    selector = {"matchLabels": _labels(container.name)}
    template = _template(container, spec)
    kept = [mount.source for mount in container.mounts if mount.source in pods.STAYS]
    if kept:
        claims = [{"metadata": {"name": one}, "spec": _claim_spec(one, "ReadWriteOnce")} for one in kept]
        return _object(
            "apps/v1", "StatefulSet", container.name,
            {"replicas": 1, "serviceName": dns(container.name), "selector": selector, "template": template,
             "volumeClaimTemplates": claims},
        )  # fmt: skip
    replicas: Object = {} if container.name == "recommender" else {"replicas": ROWS[container.name].copies}
    rolling = ROWS[container.name].copies > 1 or container.name in ("collector", "shop", "stream_features", "triton")
    strategy = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}
    one_at_a_time = {"strategy": {"type": "Recreate"}}
    return _object(
        "apps/v1", "Deployment", container.name,
        replicas | {"selector": selector, "template": template} | (strategy if rolling else one_at_a_time),
    )  # fmt: skip


def _template(container: Container, spec: Object) -> Object:
    return {"metadata": {"labels": APP | _labels(container.name)}, "spec": spec}


def _service(container: Container, name: str = "", *, headless: bool = False) -> Object:
    ports = [{"name": f"port-{port}", "port": port, "targetPort": port} for port in ROWS[container.name].ports]
    spec: Object = {"selector": _labels(container.name), "ports": ports}
    return _object("v1", "Service", name or container.name, spec | ({"clusterIP": "None"} if headless else {}))


def _autoscaler() -> Object:
    """Follows the requests that are being answered, not the processor: a recommender that waits is full as well."""
    metric = {"name": "minimart_recommender_in_flight"}
    up = {"type": "Percent", "value": 100, "periodSeconds": 30}
    down = {"type": "Pods", "value": 1, "periodSeconds": 60}
    return _object(
        "autoscaling/v2", "HorizontalPodAutoscaler", "recommender",
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "recommender"},
            "minReplicas": ROWS["recommender"].copies, "maxReplicas": 6,
            "metrics": [{"type": "External", "external": {
                "metric": metric, "target": {"type": "AverageValue", "averageValue": FULL_AT}}}],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [up]},
                "scaleDown": {"stabilizationWindowSeconds": 300, "policies": [down]},
            },
        },
    )  # fmt: skip


def _budget(name: str) -> Object:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _labels(name)}}
    return _object("policy/v1", "PodDisruptionBudget", name, spec)


def _network(here: dict[str, Container]) -> list[Object]:
    """Nothing may talk to anything, except names to the cluster's DNS and what table.py allows, from both ends."""
    everyone: Object = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    dns_ports = [{"protocol": kind, "port": 53} for kind in ("UDP", "TCP")]
    asks = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": dns_ports}]}
    out = [_object("networking.k8s.io/v1", "NetworkPolicy", name, spec)
           for name, spec in (("default-deny", everyone), ("allow-dns", asks))]  # fmt: skip
    edges = _edges(here)
    for name in here:
        if ROWS[name].kind == "init":
            continue
        to = sorted(target for source, target in edges if source == name)
        by = sorted(source for source, target in edges if target == name)
        spec: Object = {"podSelector": {"matchLabels": _labels(name)}, "policyTypes": ["Ingress", "Egress"]}
        if by:
            spec["ingress"] = [{"from": [_peer(one) for one in by], "ports": _open(name)}]
        if to:
            spec["egress"] = [{"to": [_peer(one)], "ports": _open(one)} for one in to]
        if outside := [{"protocol": "TCP", "port": port} for port in ROWS[name].outside]:
            spec["egress"].append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": outside})
        out.append(_object("networking.k8s.io/v1", "NetworkPolicy", name, spec))
    return out


def _edges(here: dict[str, Container]) -> set[tuple[str, str]]:
    """(source, target) of every allowed connection; an init container's are those of the pod that it is in."""
    out: set[tuple[str, str]] = set()
    for name in here:
        source = ROWS[name].part_of or name
        for target in ROWS[name].talks_to:
            targets = [one for one in here if ROWS[one].ports] if target == "*metrics" else [target]
            out |= {(source, one) for one in targets if one in here and one != source}
        waits = [one for one in here[name].waits_for if one in here and ROWS[one].ports]
        out |= {(source, one) for one in waits if one != source}
    return out


def _peer(name: str) -> Object:
    return {"podSelector": {"matchLabels": _labels(name)}}


def _open(name: str) -> list[Object]:
    return [{"protocol": "TCP", "port": port} for port in ROWS[name].ports]


def _files(container: Container, here: dict[str, Container]) -> list[Object]:
    """The files of the project that compose mounts, as ConfigMaps: one of single files, one for each folder."""
    single: dict[str, str] = {}
    out: list[Object] = []
    for mount in container.mounts:
        if not mount.is_file:
            continue
        path = ROOT / mount.source
        if is_folder(mount.source):
            texts = {name.replace("/", "."): file.read_text("utf-8") for name, file in listing(mount.source).items()}
            out.append(_config_map(folder_name(mount.source), texts))
        elif mount.source == PROMETHEUS:
            single[key_of(mount.source)] = _scrapes(path, here)
        else:
            single[key_of(mount.source)] = path.read_text(encoding="utf-8")
    return out + ([_config_map(pods.files_name(container.name), single)] if single else [])


def _scrapes(path: Path, here: dict[str, Container]) -> str:
    """Compose's Prometheus with the names that Services have here, one job for each part that is here."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = []
    for job in config["scrape_configs"]:
        found = [(one["names"][0], one["port"]) for one in job.get("dns_sd_configs", [])]
        jobs += [] if found else [job]
        for part, port in (one for one in found if one[0] in here):
            name = f"{dns(part)}-pods" if part in SCALED else dns(part)
            labels = [{"target_label": label, "replacement": part} for label in ("part", "job")]
            search = {"names": [name], "type": "A", "port": port, "refresh_interval": "10s"}
            jobs.append({"job_name": part, "dns_sd_configs": [search], "relabel_configs": labels})
    return dump([config | {"scrape_configs": jobs}])


def _shared_volumes(here: dict[str, Container]) -> list[str]:
    used = {mount.source for one in here.values() for mount in one.mounts if not mount.is_file}
    return sorted(used & SIZES.keys() - pods.STAYS)


def _claim(name: str) -> Object:
    return _object("v1", "PersistentVolumeClaim", name, _claim_spec(name, "ReadWriteMany"))


def _claim_spec(name: str, mode: str) -> Object:
    return {"accessModes": [mode], "resources": {"requests": {"storage": f"{SIZES[name]}Gi"}}}


def _config_map(name: str, data: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": dict(APP)}, "data": data}


def _object(version: str, kind: str, name: str, spec: Object) -> Object:
    labels = APP | ({"app.kubernetes.io/name": dns(name)} if kind not in ("NetworkPolicy",) else {})
    return {"apiVersion": version, "kind": kind, "metadata": {"name": dns(name), "labels": labels}, "spec": spec}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": dns(name)}


class _Plain(yaml.SafeDumper):
    """No anchors, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Plain.add_representer(str, _text)


def dump(objects: list[Object]) -> str:
    """The objects as one YAML text."""
    return str(yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=1000, allow_unicode=True))
