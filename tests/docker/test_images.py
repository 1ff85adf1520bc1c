"""The Dockerfile, its locks and what is sent to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from rankone.client import Client
from tests.docker.files import PROJECT, ROOT, pinned
from tests.services import Process, Start, start

__all__ = ["start"]

DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"))
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_the_targets_stand_on_one_base_pinned_by_digest() -> None:
    froms = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert {base for base in froms if base not in STAGES} == {"${BASE}"}
    assert re.search(r"^ARG BASE=docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.M)
    assert {"gpu", "cpu", "train"} <= set(STAGES)


def test_the_user_is_nobody_and_the_health_check_is_python() -> None:
    runtime = STAGES["runtime"]
    assert "USER 10001:10001" in runtime
    assert 'CMD ["python", "/opt/healthcheck.py"]' in runtime
    assert "USER" not in STAGES["gpu"] + STAGES["cpu"] + STAGES["train"]
    assert f"ARG VERSION={PROJECT['version']}\n" in runtime
    for label in ("version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in runtime


def test_dependencies_come_hashed_from_their_lock_and_before_the_source() -> None:
    for target in ("cpu", "gpu"):
        packages = STAGES[f"packages-{target}"]
        assert f"--require-hashes requirements-{target}.lock" in packages
        assert re.findall(r"^COPY (.*)", packages, re.MULTILINE) == [f"docker/requirements-{target}.lock ./"]
        copied = re.findall(r"^COPY --from=(\S+)", STAGES[target], re.MULTILINE)
        assert copied == [f"packages-{target}", "project"]
    installs = re.findall(r"(?:pip install|pip sync|uv build)[^&\n]*", DOCKERFILE)
    assert len(installs) == 5
    assert all("--require-hashes" in install or "--no-deps" in install for install in installs)


def test_what_is_copied_is_sent_and_nothing_else() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert IGNORED[1] == "*"
    assert {line.removeprefix("!") for line in IGNORED if line.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("lock", ["docker/requirements-gpu.lock", "docker/requirements-cpu.lock"])
def test_the_images_have_the_versions_that_are_tested(lock: str) -> None:
    tested, installed = pinned("requirements.lock"), pinned(lock)
    assert len(installed) > 40
    smaller = {"onnxruntime": "onnxruntime-gpu", "faiss-cpu": "faiss-gpu"}
    for name, versions in installed.items():
        # on which systems it is wanted may differ: something else may want it here
        assert {version for version, _ in versions} == {version for version, _ in tested[smaller.get(name, name)]}, name


def test_each_lock_holds_what_its_extra_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]

    def named(*extra: str) -> set[str]:
        requirements = [*PROJECT["dependencies"], *(line for name in extra for line in extras[name])]
        return {re.split(r"[>=\[]", line)[0] for line in requirements} - {"rankone"}

    gpu, cpu = set(pinned("docker/requirements-gpu.lock")), set(pinned("docker/requirements-cpu.lock"))
    assert named("layers", "service", "gpu", "train", "parquet", "tensorboard", "traces") <= gpu
    assert named("service", "cpu", "openvino", "traces") <= cpu
    assert not {"torch", "torchvision", "onnx", "matplotlib", "onnxruntime-gpu", "faiss-gpu"} & cpu
    assert not {"pytest", "onnxruntime", "faiss-cpu", "openvino"} & gpu


def test_no_lock_has_the_package_that_reports_to_its_makers() -> None:
    locks = sorted([*ROOT.glob("*.lock"), *ROOT.glob("docker/*.lock")])
    assert len(locks) == 5
    assert not [lock.name for lock in locks if "openvino-telemetry" in pinned(str(lock.relative_to(ROOT)))]


def test_the_service_and_its_queries_need_nothing_that_the_small_image_leaves_out() -> None:
    """In a process that can import the standard library, what the lock of the image names, and the GPU builds."""
    allowed = {*pinned("docker/requirements-cpu.lock"), "onnxruntime-gpu", "faiss-gpu", "rankone"}

    def is_allowed(distribution: str) -> bool:
        name = distribution.lower().replace("_", "-")
        return name in allowed or name.startswith("nvidia-")

    blocked = sorted(module for module, names in packages_distributions().items() if not any(map(is_allowed, names)))
    assert {"torch", "onnx", "matplotlib", "skimage", "scipy"} <= set(blocked)
    program = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
import rankone.service.server, rankone.client, rankone.cli.serve, rankone.cli.query
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_the_health_check_is_well_when_the_service_is_ready(start: Start) -> None:
    service: Process = start()
    script = [sys.executable, str(ROOT / "docker" / "healthcheck.py")]
    environment = {"RANKONE_PORT": str(service.port)}
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1  # it cannot be ready so soon
    assert f"http://127.0.0.1:{service.port}/readyz" in ended.stderr
    with service.ready() as client:
        assert isinstance(client, Client)
        ended = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, '{"status":"ready"}\n')
