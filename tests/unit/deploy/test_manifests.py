"""What the manifests say against what the service and its image are.

Schemas, kustomize and the running pod are `make k8s-check`'s.
"""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from typing import Any

import click
import pytest
import yaml

from pythia_bento import __version__
from pythia_bento.cli.pull import pull
from pythia_bento.cli.sweep import sweep
from pythia_bento.settings import Settings
from tests.unit.deploy.manifests import K8S, ROOT, container, document, pod, settings

BYTES = {"Mi": 2**20, "Gi": 2**30}


def size(quantity: str) -> int:
    return int(quantity[:-2]) * BYTES[quantity[-2:]]


def defaults() -> dict[str, Any]:
    return {name: field.default for name, field in Settings.model_fields.items()}


def test_every_setting_in_the_config_map_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    read = Settings()
    for name in settings():
        field = name.removeprefix("PYTHIA_").lower()
        assert field in Settings.model_fields, name
        assert str(getattr(read, field)).removesuffix(".0") == settings()[name]


def test_environment_of_the_container_names_no_unknown_setting() -> None:
    names = [entry["name"] for entry in container()["env"]]
    unknown = [
        name
        for name in names
        if name.startswith("PYTHIA_")
        and name.removeprefix("PYTHIA_").lower() not in Settings.model_fields
    ]
    assert not unknown
    # Kubernetes' own PYTHIA_SERVICE_HOST and the like would stand among the settings.
    assert pod()["enableServiceLinks"] is False


def test_grace_is_longer_than_the_longest_request_after_pre_stop() -> None:
    command, seconds = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    drain = float(settings().get("PYTHIA_DRAIN_SECONDS", 0))
    longest = float(settings()["PYTHIA_REQUEST_TIMEOUT"]) + int(seconds) + drain
    assert pod()["terminationGracePeriodSeconds"] > longest


def test_ports_are_the_service_s_and_bentoml_s() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": 3000, "grpc": defaults()["grpc_port"]}
    assert settings()["PYTHIA_GRPC_PORT"] == str(ports["grpc"])
    exposed = {
        port["targetPort"]: port["port"] for port in document("base/service.yaml")["spec"]["ports"]
    }
    assert exposed == ports


@pytest.mark.parametrize(
    ("probe", "path"), [("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/livez")]
)
def test_probes_are_by_http_because_the_port_opens_too_early(probe: str, path: str) -> None:
    found = container()[f"{probe}Probe"]
    assert found["httpGet"] == {"path": path, "port": "http"}
    assert not {"tcpSocket", "exec"} & set(found)


def test_a_start_may_take_longer_than_a_restart_would_allow() -> None:
    startup, liveness = container()["startupProbe"], container()["livenessProbe"]
    start = startup["periodSeconds"] * startup["failureThreshold"]
    assert start >= 10 * liveness["periodSeconds"] * liveness["failureThreshold"]
    assert document("base/deployment.yaml")["spec"]["progressDeadlineSeconds"] > start


def test_the_grpc_probe_asks_for_a_service_that_is_served() -> None:
    from pythia_bento.server.grpc.interceptors import SERVICES

    (patch,) = document("components/grpc-probe/kustomization.yaml")["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    probe = operation["value"]["grpc"]
    assert operation["path"].endswith("/containers/0/readinessProbe")
    assert probe["service"] in SERVICES
    assert probe["port"] == defaults()["grpc_port"]


def test_the_container_may_do_nothing_it_does_not_need() -> None:
    outer, inner = pod()["securityContext"], container()["securityContext"]
    assert outer["runAsNonRoot"] is True
    assert (outer["runAsUser"], outer["runAsGroup"]) == (1034, 1034)
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert inner["readOnlyRootFilesystem"] is True
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["privileged"] is False
    assert pod()["automountServiceAccountToken"] is False
    assert document("base/serviceaccount.yaml")["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())
    assert not any("hostPath" in volume for volume in pod()["volumes"])


def test_what_is_written_to_is_a_volume_with_a_limit() -> None:
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    home = next(entry["value"] for entry in container()["env"] if entry["name"] == "BENTOML_HOME")
    assert home.startswith(mounts["tmp"]["mountPath"] + "/")
    limit = size(volumes["tmp"]["emptyDir"]["sizeLimit"])
    assert limit < size(container()["resources"]["limits"]["ephemeral-storage"])


def test_keys_come_from_a_secret_that_must_be_there() -> None:
    (volume,) = (volume for volume in pod()["volumes"] if "secret" in volume)
    (mount,) = (each for each in container()["volumeMounts"] if each["name"] == volume["name"])
    (item,) = volume["secret"]["items"]
    assert settings()["PYTHIA_API_KEYS_FILE"] == f"{mount['mountPath']}/{item['path']}"
    assert volume["secret"]["optional"] is False
    assert mount["readOnly"] is True
    kinds = [found["kind"] for path in K8S.rglob("*.yaml") for found in kinds_of(path)]
    assert "Secret" not in kinds


def kinds_of(path: Any) -> list[dict[str, Any]]:
    found = yaml.safe_load_all(path.read_text())
    return [each for each in found if isinstance(each, dict) and "kind" in each]


@pytest.mark.parametrize("path", ["base/deployment.yaml", "overlays/gpu/deployment.yaml"])
def test_requests_and_limits_of_memory_and_cores_are_the_same(path: str) -> None:
    (found,) = document(path)["spec"]["template"]["spec"]["containers"]
    requests, limits = found["resources"]["requests"], found["resources"]["limits"]
    for name in ("cpu", "memory"):
        assert requests[name] == limits[name]  # else another pod can take what was measured with
    assert requests["ephemeral-storage"]


def test_one_replica_a_gpu() -> None:
    overlay = document("overlays/gpu/deployment.yaml")
    (found,) = overlay["spec"]["template"]["spec"]["containers"]
    for kind in ("requests", "limits"):
        assert found["resources"][kind]["nvidia.com/gpu"] == "1"
    # Where all GPUs are taken, a surge would wait for ever.
    assert overlay["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_a_disruption_can_neither_take_all_pods_nor_be_blocked() -> None:
    budget = document("base/poddisruptionbudget.yaml")["spec"]
    assert document("base/deployment.yaml")["spec"]["replicas"] > budget["maxUnavailable"] == 1


def test_nothing_leaves_the_pod_and_only_known_callers_reach_it() -> None:
    policy = document("base/networkpolicy.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_images_are_pinned_to_the_version(name: str) -> None:
    (image,) = document(f"overlays/{name}/kustomization.yaml")["images"]
    device = {"cpu": "cpu", "gpu": "cuda"}[name]
    assert image["name"] == container()["image"]
    assert image["newTag"] == f"{__version__}-{device}"


def test_no_overlay_lets_a_tag_float() -> None:
    for path in K8S.rglob("*.yaml"):
        assert not re.search(r"\blatest\b", path.read_text()), path


def test_ci_checks_them_with_the_image_that_was_built() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    checks = re.findall(r'make (image|k8s)-check ARGS="(.+?)"', script)
    images = [("image", "$work/image build"), ("image", "$work/image run")]
    assert checks == [*images, ("k8s", "$work/image")]


def claims(spec: dict[str, Any]) -> set[str]:
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }


def job_pods() -> dict[str, dict[str, Any]]:
    cluster = document("components/ray/rayjob.yaml")["spec"]["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    return {
        "pull": document("components/pull/job.yaml")["spec"]["template"],
        "job": document("components/sweep/job.yaml")["spec"]["template"],
        "head": cluster["headGroupSpec"]["template"],
        "worker": workers["template"],
    }


@pytest.mark.parametrize("kind", ["pull", "job", "head", "worker"])
def test_pods_of_jobs_may_do_no_more_than_the_service_s(kind: str) -> None:
    spec = job_pods()[kind]["spec"]
    [ours] = spec["containers"]
    assert spec["securityContext"] == pod()["securityContext"]
    assert ours["securityContext"] == container()["securityContext"]
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    mounted = {mount["name"] for mount in ours["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    [home] = [one["value"] for one in ours["env"] if one["name"] == "BENTOML_HOME"]
    [store] = [one["mountPath"] for one in ours["volumeMounts"] if one["name"] == "store"]
    assert home == store


@pytest.mark.parametrize("component", ["sweep", "ray"])
def test_volumes_of_sweeps_are_claimed(component: str) -> None:
    names = {
        document(f"components/{folder}/persistentvolumeclaim.yaml")["metadata"]["name"]
        for folder in ("store", component)
    }
    pods = {"sweep": ["job"], "ray": ["head", "worker"]}[component]
    assert all(claims(job_pods()[kind]["spec"]) == names for kind in pods)


def test_both_sweeps_are_commands_that_the_program_takes() -> None:
    [job] = job_pods()["job"]["spec"]["containers"]
    entrypoint = shlex.split(document("components/ray/rayjob.yaml")["spec"]["entrypoint"])
    for command in ([*job["command"], *job["args"]], entrypoint):
        assert command[:3] == job["command"]
        assert command[3] == "sweep"
        parser = sweep.make_parser(click.Context(sweep))  # which looks for no file
        options, _, _ = parser.parse_args(command[4:])
        assert options["names"] == ("bundled",)
        assert {"items_path", "output", "suffix"} <= options.keys()


def test_what_the_job_pulls_is_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    [job] = job_pods()["pull"]["spec"]["containers"]
    assert [*job["command"], job["args"][0]] == [*job_command(), "pull"]
    options, _, _ = pull.make_parser(click.Context(pull)).parse_args(job["args"][1:])
    [name], steps = options["models"], options["steps"]
    for variable, value in settings("components/pull").items():
        monkeypatch.setenv(variable, value)
    read = Settings()
    assert fnmatch(read.model, read.models)
    assert read.model.split("@")[0] == name and steps == "all"  # which has the last step
    assert int(options["jobs"]) > 1
    policy = document("components/pull/networkpolicy.yaml")["spec"]
    chosen = policy["podSelector"]["matchLabels"]
    assert chosen.items() <= job_pods()["pull"]["metadata"]["labels"].items()
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443}


def job_command() -> list[str]:
    [job] = job_pods()["job"]["spec"]["containers"]
    return list(job["command"])


def test_every_shard_of_the_job_is_computed_once() -> None:
    job = document("components/sweep/job.yaml")["spec"]
    [ours] = job["template"]["spec"]["containers"]
    [shard] = [part for part in ours["args"] if part.startswith("--shard=")]
    assert job["completionMode"] == "Indexed"
    assert shard == f"--shard=$(JOB_COMPLETION_INDEX)/{job['completions']}"


def test_only_the_pods_of_sweeps_are_shut_off_by_their_policies() -> None:
    for component, kinds in (("sweep", ["job"]), ("ray", ["head", "worker"])):
        policy = document(f"components/{component}/networkpolicy.yaml")["spec"]
        chosen = policy["podSelector"]["matchLabels"]
        for kind in kinds:
            assert chosen.items() <= job_pods()[kind]["metadata"]["labels"].items()
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def test_ray_of_the_job_is_the_one_that_is_tested() -> None:
    said = document("components/ray/rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={said} " in (ROOT / "requirements" / "ray.txt").read_text()
