"""deploy/kubernetes: valid by the schemas of the API, and its parts name each other and what there is."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rankone.service.settings import Settings
from tests.docker.files import ROOT, services

FOLDER = ROOT / "deploy" / "kubernetes"
RESOURCES = [entry for path in sorted(FOLDER.glob("*.yaml")) for entry in yaml.safe_load_all(path.read_text("utf-8"))]
BY_KIND: dict[str, list[dict[str, Any]]] = {}
for resource in RESOURCES:
    BY_KIND.setdefault(resource["kind"], []).append(resource)
(DEPLOYMENT,) = BY_KIND["Deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(SERVICE,) = POD["containers"]
API_VERSIONS = ["1.29", "1.33", kubernetes_validate.latest_version()]


def test_all_that_is_needed_is_there() -> None:
    assert {kind: len(found) for kind, found in BY_KIND.items()} == {
        "PersistentVolumeClaim": 2,
        "Deployment": 1,
        "Service": 1,
    }


@pytest.mark.parametrize("version", API_VERSIONS)
def test_they_are_valid_by_the_schemas_of_the_api(version: str) -> None:
    for resource in RESOURCES:
        kubernetes_validate.validate(resource, version, strict=True)
    wrong = copy.deepcopy(DEPLOYMENT)
    wrong["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_names_of_services_do_not_become_settings() -> None:
    """A Service `rankone` would set RANKONE_PORT=tcp://10.0.0.1:8000."""
    assert POD["enableServiceLinks"] is False


def test_the_parts_name_each_other() -> None:
    (service,) = BY_KIND["Service"]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {port["name"] for port in SERVICE["ports"]}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in POD["volumes"]
        if len(volume) == 2 and "persistentVolumeClaim" in volume
    }
    assert claims == {claim["metadata"]["name"] for claim in BY_KIND["PersistentVolumeClaim"]}
    volumes = {volume["name"] for volume in POD["volumes"]}
    mounted = {mount["name"] for container in (*POD["initContainers"], SERVICE) for mount in container["volumeMounts"]}
    assert volumes == mounted


def test_the_probes_ask_what_they_should() -> None:
    probes = {name: SERVICE[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    paths = {name: probe["path"] for name, probe in probes.items()}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_it_is_as_closed_as_the_containers_of_compose() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    for container in (*POD["initContainers"], SERVICE):
        closed = container["securityContext"]
        assert closed["readOnlyRootFilesystem"] is True
        assert closed["allowPrivilegeEscalation"] is False
        assert closed["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
    (bundles,) = [mount for mount in SERVICE["volumeMounts"] if mount["name"] == "bundles"]
    assert bundles["readOnly"] is True


def test_images_settings_and_times_are_ours() -> None:
    ours = {service["image"] for service in services().values() if "build" in service}
    assert {container["image"] for container in (*POD["initContainers"], SERVICE)} <= ours
    assert POD["initContainers"][0]["args"][:3] == services()["init"]["command"][:3]
    given = {entry["name"]: entry["value"] for entry in SERVICE["env"]}
    for name in given:
        assert name.removeprefix("RANKONE_").lower() in Settings.model_fields
    assert given["RANKONE_THREADS"] == given["RANKONE_WORKERS"] == SERVICE["resources"]["limits"]["cpu"]
    fields = Settings.model_fields
    least = fields["grace_s"].default + fields["drain_s"].default
    assert POD["terminationGracePeriodSeconds"] > least
