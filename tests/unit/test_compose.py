"""The compose file as data: one block per service, loopback ports, limits, health checks, pinned tags, no secrets."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from settings import ROOT, Settings

DOCUMENT = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
JOBS = ("secrets", "topics", "mlflow-database", "bucket", "seed", "train", "welcome", "tools")
STAY = sorted(SERVICES.keys() - set(JOBS))
OPTIONAL = ("triton-gpu",)  # of a profile: not part of the 8 GiB
ROLES = ("serving", "pipelines", "mlflow", "triton", "object-store")
MIB = {"m": 1, "g": 1024}
# Names that only the compose file knows; each stands in docs/compose.md.
BESIDES = {"TORCH_INDEX"}


def memory(block: dict[str, Any]) -> int:
    return int(block["mem_limit"][:-1]) * MIB[block["mem_limit"][-1]]


def waits_for(block: dict[str, Any], condition: str) -> set[str]:
    return {name for name, how in (block.get("depends_on") or {}).items() if how["condition"] == condition}


def test_one_block_for_each_folder_of_services() -> None:
    folders = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    started = {name for name, block in SERVICES.items() if re.search(r"services\.\w+", str(block.get("command")))}
    assert started == folders
    for name in folders:
        assert f"services.{name}" in str(SERVICES[name]["command"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback_and_can_be_moved(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{MINIMART_[A-Z_]+_PORT:-\d+\}:\d+", port), port
    assert SERVICES[name].get("network_mode") in (None, "none")


def test_published_ports_have_the_defaults_of_the_settings() -> None:
    for block in SERVICES.values():
        for port in block.get("ports", ()):
            name, default = re.search(r"MINIMART_([A-Z_]+):-(\d+)", port).groups()  # type: ignore[union-attr]
            assert Settings.model_fields[name.lower()].default == int(default)


@pytest.mark.parametrize("name", SERVICES)
def test_tags_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d[\w.-]*", SERVICES[name]["image"]), SERVICES[name]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_memory_is_limited(name: str) -> None:
    assert 16 <= memory(SERVICES[name]) <= 4096


def test_the_whole_platform_fits_into_8_gib() -> None:
    assert sum(memory(SERVICES[name]) for name in STAY if name not in OPTIONAL) <= 8192


@pytest.mark.parametrize("name", STAY)
def test_what_stays_is_restarted_and_asked_for_its_health(name: str) -> None:
    block = SERVICES[name]
    assert block["restart"] == "unless-stopped"
    own = block.get("healthcheck", {}).get("test")
    assert own or "HEALTHCHECK" in dockerfile(block["image"])
    assert block["attach"] is False  # the terminal of `up` is for the jobs and for the last line
    assert block["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_and_somebody_waits_for_it(name: str) -> None:
    """`up --wait` takes an end with 0 for success only where another one waits for exactly that."""
    assert SERVICES[name]["restart"] == "no"
    assert SERVICES[name]["healthcheck"] == {"disable": True}
    if not SERVICES[name].get("profiles"):
        assert any(name in waits_for(block, "service_completed_successfully") for block in SERVICES.values())


def test_live_shoppers_come_after_the_first_answer() -> None:
    assert waits_for(SERVICES["simulator"], "service_completed_successfully") == {"welcome"}
    assert {"balancer", "shop"} <= waits_for(SERVICES["welcome"], "service_healthy")


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_named_and_files_of_the_project_are_read_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.split(":")[0]
        if volume.startswith("${MINIMART_DATA:-"):
            assert volume.endswith("/import:ro")
        elif source.startswith("./"):
            assert volume.endswith(":ro")
            assert (ROOT / source).exists(), f"{source} of {name}"
        else:
            assert source in DOCUMENT["volumes"]


def test_serving_reads_models_and_one_part_writes_the_lake() -> None:
    def writes(volume: str) -> set[str]:
        return {
            name for name, block in SERVICES.items()
            if any(one.startswith(f"{volume}:") and not one.endswith(":ro") for one in block.get("volumes", ()))
        }  # fmt: skip

    programs = {name for name, block in SERVICES.items() if block["image"].startswith("minimart-pipelines")}
    assert writes("lake") - programs == {"event_log"}
    for volume in ("published", "triton-models", "features", "truth"):
        assert writes(volume) <= programs
    assert writes("secrets") == writes("vault") == {"secrets"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_told_to_our_processes_are_settings(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if key.startswith("MINIMART_"):
            assert key.removeprefix("MINIMART_").lower() in Settings.model_fields, key
        given = re.fullmatch(r"\$\{(\w+):-(.*)\}", str(value))
        if given and key == given[1] and not key.endswith("_PASSWORD"):
            default = Settings.model_fields[key.removeprefix("MINIMART_").lower()].default
            assert str(default).lower() == given[2].lower(), (
                f"{key} defaults to {given[2]} here and to {default} in settings.py"
            )


def test_every_variable_is_a_setting() -> None:
    text = "\n".join(line.split(" #")[0] for line in (ROOT / "docker-compose.yml").read_text().splitlines())
    for name in set(re.findall(r"(?<!\$)\$\{(\w+)", text)) - BESIDES:
        assert name.removeprefix("MINIMART_").lower() in Settings.model_fields, name


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, block in SERVICES.items():
        for key, value in block.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", key):
                file = str(value).startswith(("/run/secrets/", "/run/vault/"))
                assert file or value == f"${{{key}:-}}", f"{name}: {key}"


# Images


def test_each_image_of_ours_is_built_once() -> None:
    """Every further `build` of the same image would be one more export of gigabytes."""
    built = [block["image"] for block in SERVICES.values() if "build" in block]
    ours = {block["image"] for block in SERVICES.values() if block["image"].startswith("minimart-")}
    assert sorted(built) == sorted(ours)


def dockerfile(image: str) -> str:
    found = re.match(r"minimart-([a-z-]+):", image)
    return (ROOT / "deploy" / "images" / found[1] / "Dockerfile").read_text() if found else ""


@pytest.mark.parametrize("role", ROLES)
def test_images_are_built_in_stages_without_root_and_from_locks(role: str) -> None:
    text = (ROOT / "deploy" / "images" / role / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert text.count("\nFROM ") >= 2
    assert re.search(r"^USER minimart$", final, re.M)
    assert "HEALTHCHECK" in final
    assert "STOPSIGNAL SIGTERM" in final
    assert "sbom.cdx.json" in final
    assert not re.search(r"pip install(?!.*--require-hashes)", final)
    for line in re.findall(r"pip (?:install|sync).*", text.replace("\\\n", " ")):
        assert "--require-hashes" in line or "torch.txt" in line, line
    assert not re.search(r"(ARG|ENV)[^\n]*(PASSWORD|SECRET|TOKEN)", text)


@pytest.mark.parametrize("role", ROLES)
def test_a_change_of_code_does_not_install_again(role: str) -> None:
    text = (ROOT / "deploy" / "images" / role / "Dockerfile").read_text()
    installed, _, after = text.partition(" sync ") if " sync " in text else text.partition("go build")
    assert after
    assert not re.search(r"^COPY (settings|adapters|models|pipelines|services)", installed, re.M)


def test_the_context_holds_nothing_private() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert "*" in lines
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert not [name for name in kept if name.startswith((".env", ".minimart", ".venv", "tests"))]
    assert {name for name in kept if name.startswith(".git")} == {".git/HEAD", ".git/packed-refs", ".git/refs/heads"}


def test_the_server_of_mlflow_is_the_version_of_its_clients() -> None:
    pins = [
        re.search(r"^mlflow==\S+", (ROOT / "requirements" / name).read_text(), re.M)
        for name in ("mlflow.txt", "training.txt")
    ]
    assert pins[0] is not None
    assert pins[1] is not None
    assert pins[0][0] == pins[1][0]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / script), *arguments], capture_output=True, text=True, timeout=60)


def test_the_bill_of_materials_names_what_is_installed() -> None:
    bill = json.loads(run("deploy/images/sbom.py", "serving").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    purls = {one["purl"] for one in bill["components"]}
    assert any(purl.startswith("pkg:pypi/numpy@") for purl in purls)


def test_the_bill_of_materials_of_a_go_program(tmp_path: Path) -> None:
    modules = tmp_path / "modules.txt"
    modules.write_text("gw: go1.27\n\tpath\tx\n\tmod\tobject-store\t(devel)\n\tdep\tgithub.com/a/b\tv1.2.3\th1:abc=\n")
    bill = json.loads(run("deploy/images/sbom.py", "object-store", str(modules), str(tmp_path / "none")).stdout)
    assert [one["purl"] for one in bill["components"]] == ["pkg:golang/github.com/a/b@v1.2.3"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_is_read_without_git(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    if packed:
        (tmp_path / "packed-refs").write_text("# pack-refs with: peeled\nabc123 refs/heads/main\n")
    else:
        (tmp_path / "refs" / "heads").mkdir(parents=True)
        (tmp_path / "refs" / "heads" / "main").write_text("abc123\n")
    assert run("deploy/images/commit.py", str(tmp_path)).stdout == "abc123\n"
    assert run("deploy/images/commit.py", str(tmp_path / "nothing")).stdout == "unknown\n"


# Secrets


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """secrets.py as a module whose two volumes are folders of this test."""
    namespace: dict[str, Any] = {"__name__": "made_secrets"}
    text = (ROOT / "deploy" / "compose" / "secrets.py").read_text().replace('Path("/run/', f'Path("{tmp_path}/')
    exec(compile(text, "secrets.py", "exec"), namespace)
    for folder in ("secrets", "vault"):
        (tmp_path / folder).mkdir()
    for _, variable in namespace["KNOWN"].values():
        monkeypatch.delenv(variable, raising=False)
    return namespace


def values(vault: Any) -> dict[str, str]:
    return {name: file.read_text() for name, (file, _) in vault["KNOWN"].items()}


def test_secrets_are_made_once_and_kept(vault: Any) -> None:
    assert vault["make"]() == 0
    made = values(vault)
    assert len(set(made.values())) == len(made)
    assert min(map(len, made.values())) >= 32
    assert vault["make"]() == 0
    assert values(vault) == made


def test_a_password_that_is_given_is_taken(vault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMART_REDIS_PASSWORD", "my own one")
    assert vault["make"]() == 0
    assert values(vault)["redis"] == "my own one"


def test_a_password_that_a_store_does_not_know_is_refused(vault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vault["make"]()
    monkeypatch.setenv("MINIMART_MLFLOW_PASSWORD", "another")
    assert "MINIMART_MLFLOW_PASSWORD is not the one" in vault["make"]()


def test_production_refuses_a_password_that_everybody_knows(vault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMART_ENVIRONMENT", "production")
    monkeypatch.setenv("MINIMART_MLFLOW_PASSWORD", "password1234")
    assert "production needs one of your own" in vault["make"]()


def test_secrets_of_services_are_the_files_that_settings_read(vault: Any) -> None:
    for name in ("redis", "mlflow", "clickhouse"):
        assert vault["KNOWN"][name][0].name == f"minimart_{name}_password"
        assert f"{name}_password" in Settings.model_fields


# Configurations of the stores and of Triton


def test_prometheus_reads_every_service() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yml").read_text())
    named: dict[str, int] = {}
    for job in config["scrape_configs"]:
        named.update({one["names"][0]: one["port"] for one in job.get("dns_sd_configs", ())})
        for one in job.get("static_configs", ()):
            host, _, port = one["targets"][0].rpartition(":")
            named[host] = int(port)
    folders = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    assert folders <= named.keys()
    for name in folders:
        assert named[name] == Settings.model_fields[f"{name}_port"].default


def test_mlflow_has_no_password_of_its_own() -> None:
    ini = configparser.ConfigParser()
    ini.read(ROOT / "deploy" / "images" / "mlflow" / "auth.ini")
    assert "admin_password" not in ini["mlflow"]
    assert ini["mlflow"]["admin_username"] == SERVICES["tools"]["environment"]["MINIMART_MLFLOW_USER"]


@pytest.mark.parametrize("model", ["two_tower_user", "preranker", "ranker"])
def test_the_configuration_of_a_model_holds_on_a_gpu_too(model: str) -> None:
    """Parsed by Triton's own schema: the backend is the one of NVIDIA's image, and no instance is bound to a CPU."""
    text = (ROOT / "deploy" / "triton" / model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.name == model
    assert config.backend == "onnxruntime"
    kinds = {group.kind for group in config.instance_group}
    assert kinds <= {model_config_pb2.ModelInstanceGroup.KIND_AUTO, model_config_pb2.ModelInstanceGroup.KIND_GPU}
    assert config.HasField("dynamic_batching")


def test_the_tower_by_tensorrt_differs_from_the_usual_one_in_its_accelerator_alone() -> None:
    folder = ROOT / "deploy" / "triton" / "two_tower_user"
    usual, trt = (text_format.Parse((folder / name).read_text(), model_config_pb2.ModelConfig())
                  for name in ("config.pbtxt", "configs/tensorrt_fp16.pbtxt"))  # fmt: skip
    (accelerator,) = trt.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, accelerator.parameters["precision_mode"]) == ("tensorrt", "FP16")
    trt.ClearField("optimization")
    assert trt == usual
    assert "--model-config-name=${MINIMART_TRITON_GPU_CONFIG:-config}" in SERVICES["triton-gpu"]["command"]


def test_the_gpu_profile_serves_the_same_models() -> None:
    gpu, cpu = SERVICES["triton-gpu"], SERVICES["triton"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["volumes"] == cpu["volumes"] == ["triton-models:/data/triton:ro"]
    assert "--model-control-mode=explicit" in gpu["command"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert cpu["depends_on"]["triton-gpu"] == {"condition": "service_healthy", "required": False}
