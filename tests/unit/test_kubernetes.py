"""deploy/k8s: valid by Kubernetes' own schemas, the same topology as docker-compose.yml, and closed by default.

The schemas come with a package. The overlays are built with kubectl or kustomize where one of them is on PATH.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import kubernetes_validate.utils
import pytest
import yaml

from pipelines.kubernetes import composed
from pipelines.kubernetes.__main__ import FOLDER, files
from pipelines.kubernetes.manifests import PROMETHEUS
from pipelines.kubernetes.pods import dns, is_ours
from pipelines.kubernetes.table import NOT_HERE, ROWS, SECRETS
from settings import ROOT, Settings

VERSION: Final = "1.34"
K8S: Final = ROOT / "deploy/k8s"
OVERLAYS: Final = ("base", "overlays/laptop", "overlays/production")
WORKLOADS: Final = ("Deployment", "StatefulSet", "Job")
Object = dict[str, Any]


@cache
def built(overlay: str) -> tuple[Object, ...]:
    """The objects of an overlay as kubectl would apply them; of the base, those in the files."""
    if overlay == "base":
        texts = [path.read_text() for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"]
        return tuple(one for text in texts for one in yaml.safe_load_all(text))
    builder = next((b for b in (["kubectl", "kustomize"], ["kustomize", "build"]) if shutil.which(b[0])), None)
    if builder is None:
        pytest.skip("neither kubectl nor kustomize is on PATH")
    done = subprocess.run([*builder, str(K8S / overlay)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in built(overlay) if one["kind"] in kinds}


def pod_of(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def containers(overlay: str) -> Iterator[tuple[str, Object, Object]]:
    """(workload, pod, container) of every container, init containers too."""
    for name, workload in of_kind(overlay, *WORKLOADS).items():
        pod = pod_of(workload)
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            yield name, pod, container


@pytest.fixture(autouse=True)
def schemas_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", READ_ONCE)


READ_ONCE: Final = cache(kubernetes_validate.utils.schema_contents)
HERE: Final = {name: one for name, one in composed.read().items() if name not in NOT_HERE}
EACH = pytest.mark.parametrize("overlay", OVERLAYS)


def test_the_files_are_those_of_docker_compose() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yaml")}
    assert there == files(), "run `make kubernetes`"


@EACH
def test_every_object_is_valid_by_kubernetes_own_schema(overlay: str) -> None:
    for one in built(overlay):
        kubernetes_validate.validate(one, VERSION, strict=True)


def test_a_wrong_field_would_be_noticed() -> None:
    wrong = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@EACH
def test_no_two_objects_have_the_same_name(overlay: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in built(overlay)]
    assert len(set(names)) == len(names)


def test_every_container_of_compose_is_here_with_its_image_command_and_memory() -> None:
    here = {container["name"]: container for _, _, container in containers("base")}
    assert here.keys() - {"wait"} == {dns(name) for name in HERE}
    for name, one in HERE.items():
        container = here[dns(name)]
        assert container["image"] == one.image
        assert tuple(container.get("command", ())) == one.entrypoint
        assert tuple(container.get("args", ())) == one.command
        assert container["resources"]["limits"]["memory"] == one.memory
        assert {m["mountPath"] for m in container["volumeMounts"]} >= {mount.target for mount in one.mounts}


def test_every_setting_is_one_that_settings_knows_and_leads_to_a_service_that_is_here() -> None:
    (config,) = [one for one in built("base") if one["metadata"]["name"] == "minimart-settings"]
    known = {f"MINIMART_{name.upper()}" for name in Settings.model_fields}
    assert config["data"].keys() <= known
    assert config["data"].keys() == composed.shared_settings().keys()
    services = of_kind("base", "Service")
    open_ports = {name: {port["port"] for port in one["spec"]["ports"]} for name, one in services.items()}
    for key, value in config["data"].items():
        address = value.removeprefix("http://").removeprefix("redis://").removesuffix("/0")
        if not key.endswith(("_URL", "_URI", "_BOOTSTRAP", "_GRPC", "_HTTP")):
            continue
        host, port = address.split(":")
        if host.replace("-", "_") in HERE or host in HERE or host == "balancer":
            assert int(port) in open_ports[host], key


def test_variables_of_compose_are_filled_in() -> None:
    assert composed._filled("${A:-x}/${B:+y}/${C}/$$(hostname)") == "x///$(hostname)"
    written = [text for name, text in files().items() if "ConfigMap" not in text or name == "settings.yaml"]
    assert not [text for text in written if "${" in text]


def test_our_services_listen_where_settings_says() -> None:
    for name, one in HERE.items():
        if is_ours(one) and ROWS[name].kind == "service":
            assert ROWS[name].ports[0] == Settings.model_fields[f"{name}_port"].default


def test_prometheus_reads_every_service_that_is_here() -> None:
    (config,) = [one for one in built("base") if one["metadata"]["name"] == "prometheus-files"]
    scraped = yaml.safe_load(config["data"]["prometheus.yml"])["scrape_configs"]
    found = {name for job in scraped for one in job.get("dns_sd_configs", []) for name in one["names"]}
    assert found <= of_kind("base", "Service").keys()
    asked = yaml.safe_load((ROOT / PROMETHEUS).read_text())["scrape_configs"]
    parts = {name for job in asked for one in job.get("dns_sd_configs", []) for name in one["names"]}
    fixed = {job["job_name"] for job in asked if "dns_sd_configs" not in job}
    assert {job["job_name"] for job in scraped} == fixed | (parts & HERE.keys())


@EACH
def test_nothing_runs_as_root_or_may_become_it(overlay: str) -> None:
    for _, pod, container in containers(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        if container["image"].startswith("minimart-"):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@EACH
def test_every_container_says_what_it_needs_and_how_it_is_asked(overlay: str) -> None:
    for name, pod, container in containers(overlay):
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"]["memory"]
        stays = container in pod["containers"] and name not in of_kind(overlay, "Job")
        assert {"readinessProbe", "livenessProbe", "startupProbe"} <= container.keys() if stays else True


@EACH
def test_secrets_are_named_and_not_contained(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    named = {volume["secret"]["secretName"] for _, pod, _ in containers(overlay) for volume in pod["volumes"]
             if "secret" in volume}  # fmt: skip
    assert named == set(SECRETS.values())
    for _, _, container in containers(overlay):
        for entry in container.get("env", []):
            assert "PASSWORD" not in entry["name"] or entry["value"].startswith("/run/")


@EACH
def test_every_reference_leads_somewhere(overlay: str) -> None:
    claims, maps = of_kind(overlay, "PersistentVolumeClaim"), of_kind(overlay, "ConfigMap")
    for name, pod, container in containers(overlay):
        workload = of_kind(overlay, *WORKLOADS)[name]
        own = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            assert mount["name"] in volumes.keys() | own
            keys = volumes.get(mount["name"], {}).get("configMap", {})
            if keys and mount.get("subPath"):
                assert mount["subPath"] in maps[keys["name"]]["data"]
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "configMap" in volume:
                there = maps[volume["configMap"]["name"]]["data"]
                assert all(item["key"] in there for item in volume["configMap"].get("items", []))
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in of_kind(overlay, *WORKLOADS).items()}
    for kind in ("Service", "PodDisruptionBudget"):
        for name, one in of_kind(overlay, kind).items():
            selector = one["spec"]["selector"]
            wanted = selector.get("matchLabels", selector) if kind != "Service" else selector
            assert any(wanted.items() <= label.items() for label in labels.values()), name


@EACH
def test_the_network_is_closed_and_every_opening_has_two_ends(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    closed = policies["default-deny"]["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    out, into = set(), set()
    for name, policy in policies.items():
        for rule in policy["spec"].get("egress", []):
            out |= {(name, peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"])
                    for peer in rule.get("to", []) if "podSelector" in peer}  # fmt: skip
        for rule in policy["spec"].get("ingress", []):
            into |= {(peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], name)
                     for peer in rule["from"] if "podSelector" in peer}  # fmt: skip
    assert out == into
    assert ("shop", "recommender") in out
    world = {name for name, one in policies.items() for rule in one["spec"].get("egress", [])
             for peer in rule.get("to", []) if "ipBlock" in peer}  # fmt: skip
    assert world == {"grafana"}, "nothing else may reach the world"
    assert not {("shop", "postgres"), ("recommender", "mlflow"), ("grafana", "kafka")} & out


def test_what_compose_waits_for_may_be_reached() -> None:
    policies = of_kind("base", "NetworkPolicy")
    for name, one in HERE.items():
        source = dns(ROWS[name].part_of or name)
        to = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
              for rule in policies[source]["spec"].get("egress", []) for peer in rule["to"]
              if "podSelector" in peer}  # fmt: skip
        waited = {dns(other) for other in one.waits_for if other in HERE and ROWS[other].ports}
        assert waited - {source} <= to, name


@EACH
def test_the_recommender_scales_on_its_own_load_and_survives_drained_nodes(overlay: str) -> None:
    scaler = of_kind(overlay, "HorizontalPodAutoscaler")["recommender"]["spec"]
    (metric,) = scaler["metrics"]
    adapter = yaml.safe_load((K8S / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    assert metric["external"]["metric"]["name"] in {rule["name"]["as"] for rule in adapter}
    config = of_kind(overlay, "ConfigMap")["minimart-settings"]["data"]
    most = int(config["MINIMART_RECOMMENDER_IN_FLIGHT"])
    assert int(metric["external"]["target"]["averageValue"]) == most // 2, "half of what one recommender takes"
    assert "replicas" not in of_kind(overlay, "Deployment")["recommender"]["spec"]
    assert {"recommender", "collector", "shop", "stream-features"} <= of_kind(overlay, "PodDisruptionBudget").keys()


def test_production_is_production_and_has_no_live_simulator() -> None:
    overlay = "overlays/production"
    assert of_kind(overlay, "ConfigMap")["minimart-settings"]["data"]["MINIMART_ENVIRONMENT"] == "production"
    assert of_kind(overlay, "Deployment")["simulator"]["spec"]["replicas"] == 0
    images = {container["image"] for _, _, container in containers(overlay)}
    assert not [image for image in images if ":" not in image or image.endswith(":latest")]
    labels = of_kind(overlay, "Namespace")["minimart"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
