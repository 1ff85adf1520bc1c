"""docker-compose.yml: valid, closed, and nothing to be prepared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from rankone.cli.serve import serve
from rankone.service.settings import Settings
from tests.docker.files import PROJECT, ROOT, TEXT, VARIABLE, assignments, compose, services

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
SERVICES = services()
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
THEIRS = {name: service for name, service in SERVICES.items() if "build" not in service}
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}

NO_KEYS = "./RANKONE_KEYS_FILE-is-not-set"
"""What the proxy mounts where there are no keys; it must not be there."""

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_it_is_valid_by_the_schema_of_the_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))
    validator = jsonschema_rs.validator_for(schema)
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(compose())] == []
    wrong = compose()
    wrong["services"]["service"]["read-only"] = True
    assert not validator.is_valid(wrong)


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client")
@pytest.mark.parametrize("profile", ["", "gpu", "cpu", "train", "proxy", "observe"])
def test_docker_compose_reads_it_too(profile: str) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker client lacks its compose plugin")
    command = ["docker", "compose", *(["--profile", profile] if profile else []), "config", "--services"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) == started(profile)


def started(profile: str) -> set[str]:
    return {name for name, service in SERVICES.items() if profile in service["profiles"]}


def test_a_profile_starts_what_it_is_for() -> None:
    assert started("gpu") == started("") == {"init", "check", "service", "proxy"}
    assert started("cpu") == {"init", "check-cpu", "service-cpu", "proxy"}
    assert started("train") == {"train"}
    assert started("proxy") == {"proxy-tls"}
    assert started("observe") == {"prometheus", "grafana"}


def test_it_needs_no_file_of_variables_and_none_is_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files", ".env"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert tracked.stdout == ""
    assert {str(service["env_file"]) for service in SERVICES.values() if "env_file" in service} == {
        "[{'path': '.env', 'required': False}]"
    }
    assert "/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_every_variable_has_a_default_or_an_error() -> None:
    used = re.findall(r"\$\{?\w+[^}]*\}?", TEXT)
    assert len(used) > 20
    for variable in used:
        found = VARIABLE.fullmatch(variable)
        assert found, variable
        assert found.lastgroup != "name", variable


def test_every_variable_is_documented_with_its_default() -> None:
    used = [found for found in VARIABLE.finditer(TEXT) if found["instead"] is None and found["default"] != NO_KEYS]
    defaults = {found["name"]: found["default"] for found in used}
    assert assignments(".env.example") == {"COMPOSE_PROFILES": "gpu", **defaults}
    for found in used:
        assert found["default"] == defaults[found["name"]], found["name"]


@each_service
def test_no_service_can_do_more_than_it_must(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    for key in ("privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode", "user"):
        assert key not in service, key
    assert "docker.sock" not in str(service)
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["pids"]


@pytest.mark.parametrize("service", LASTING.values(), ids=LASTING)
def test_what_lasts_is_restarted_and_has_a_health_check(service: dict[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"


def test_images_are_pinned() -> None:
    for name, service in OURS.items():
        assert service["image"] == f"rankone:{PROJECT['version']}-{service['build']['target']}", name
    for name, service in THEIRS.items():
        assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+\.\d+(-alpine)?@sha256:[0-9a-f]{64}", service["image"]), name


def test_the_service_waits_for_a_bundle_that_is_made_where_it_looks() -> None:
    command = SERVICES["init"]["command"]
    assert command[:2] == ["bundle", "init"]
    for name, before in (("service", "check"), ("service-cpu", "check-cpu"), ("check", "init"), ("check-cpu", "init")):
        service = SERVICES[name]
        assert service["depends_on"] == {before: {"condition": "service_completed_successfully"}}
        assert f"RANKONE_BUNDLES={command[2]} " in DOCKERFILE
        assert service["volumes"] == ["bundles:/bundles:ro", "data:/data"]
    assert "bundles:/bundles" in SERVICES["init"]["volumes"]


def test_a_demo_is_served_only_where_it_is_asked_for() -> None:
    assert "--fallback" not in SERVICES["init"]["command"]
    assert SERVICES["init"]["environment"] == {"RANKONE_DEMO": "false"}
    assert services(RANKONE_DEMO="true")["init"]["environment"] == {"RANKONE_DEMO": "true"}


def test_only_what_needs_a_gpu_reserves_one() -> None:
    for name, service in SERVICES.items():
        reserved = service["deploy"]["resources"].get("reservations", {}).get("devices", [])
        wanted = [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}]
        assert reserved == (wanted if name in ("service", "check", "train") else []), name


@pytest.mark.parametrize("name", ["service", "service-cpu"])
def test_the_check_sees_what_the_service_will_see_and_is_not_restarted(name: str) -> None:
    service, check = SERVICES[name], SERVICES[name.replace("service", "check")]
    assert check["command"] == ["serve", "--check"]
    assert check["restart"] == "no"
    for key in ("build", "image", "environment", "env_file", "secrets", "volumes", "deploy"):
        assert check[key] == service[key], key
    assert check["networks"] == ["default"], "it must not take the service's name"


def test_ours_are_built_or_missing_and_never_somebody_elses() -> None:
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}


def test_a_host_with_its_own_bundle_builds_the_small_image_alone() -> None:
    given = services(RANKONE_INIT="cpu")
    built = {given[name]["image"] for name in started("cpu") if "build" in given[name]}
    assert built == {f"rankone:{PROJECT['version']}-cpu"}
    assert given["init"]["build"]["target"] == "cpu"


def test_the_end_leaves_time_to_drain() -> None:
    service = SERVICES["service"]
    grace_s = float(service["environment"]["RANKONE_GRACE_S"])
    assert float(service["stop_grace_period"].removesuffix("s")) > grace_s + Settings.model_fields["drain_s"].default


def test_nobody_outside_is_let_in_by_default_but_through_the_proxy() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or name == "proxy-tls", name
    assert services(RANKONE_LISTEN="0.0.0.0:80")["proxy"]["ports"] == ["0.0.0.0:80:8080"]
    assert "ports" not in services()["service"], "it is reached through the proxy alone"


def test_the_proxy_does_not_start_before_a_service_without_keys() -> None:
    def needed(**variables: str) -> dict[str, Any]:
        (bound,) = [volume for volume in services(**variables)["proxy-tls"]["volumes"] if isinstance(volume, dict)]
        assert (bound["type"], bound["bind"]) == ("bind", {"create_host_path": False})  # or Docker would make a folder
        return bound

    assert services()["service"]["environment"]["RANKONE_KEYS"] == ""
    assert needed()["source"] == NO_KEYS
    assert not (ROOT / NO_KEYS).exists()
    with_keys = {"RANKONE_KEYS_FILE": "./secrets/keys.json"}
    assert services(**with_keys)["service"]["environment"]["RANKONE_KEYS"]
    assert needed(**with_keys)["source"] == with_keys["RANKONE_KEYS_FILE"]


def test_what_is_mounted_is_there_or_has_a_name() -> None:
    read = compose()
    theirs = {
        "tls-certificate",
        "tls-key",
    }  # no default could be right: without them, Docker refuses to start the proxy
    for name, secret in read["secrets"].items():
        assert name in theirs or (ROOT / secret["file"]).is_file(), name
    mounted = [volume for service in SERVICES.values() for volume in service["volumes"] if isinstance(volume, str)]
    for source in {volume.split(":")[0] for volume in mounted}:
        assert source in read["volumes"] or (ROOT / source).exists(), source
    (images,) = [volume for volume in SERVICES["train"]["volumes"] if isinstance(volume, dict)]
    assert images["read_only"]
    assert not images["bind"]["create_host_path"]


def test_the_service_takes_the_variables_of_image_and_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Settings] = []
    monkeypatch.setattr("rankone.service.server.serve", taken.append)

    def settings(**variables: str) -> Settings:
        image = dict(re.findall(r"(RANKONE_[A-Z]+)=(\S+)", DOCKERFILE))
        for name, value in {**image, **services(**variables)["service"]["environment"]}.items():
            assert name.removeprefix("RANKONE_").lower() in Settings.model_fields
            monkeypatch.setenv(name, value)
        serve([])
        return taken[-1]

    without = settings()
    assert (without.keys, without.allow_anonymous, without.bundles) == (None, False, Path("/bundles"))
    assert without.own_keys == Path("/data/keys"), "the first start makes a key, in a volume"
    assert "data:/data" in services()["service"]["volumes"]
    assert without.allowed_hosts == ("rankone",), "as Prometheus calls it, if there are no keys"
    assert without.device == "cuda"
    assert settings(RANKONE_KEYS_FILE="./secrets/keys.json").keys == Path("/run/secrets/keys")
