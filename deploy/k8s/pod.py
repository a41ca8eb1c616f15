"""The cpu overlay's pod on this machine: what podman is to play, and requests to it.

python -m deploy.k8s.pod manifest OVERLAY.yaml IMAGE HTTP_PORT GRPC_PORT KEYS >pod.yaml
python -m deploy.k8s.pod ask HTTP_PORT GRPC_PORT KEY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pythia_bento.client import Client
from pythia_bento.errors import PythiaError

PLAYED = ("ConfigMap", "Deployment")
HEALTH = ("", "pythia.v1.Pythia")  # the server's, and the one that components/grpc-probe names


def manifest(
    overlay: list[dict[str, Any]], image: str, ports: dict[str, int], keys: str
) -> list[dict[str, Any]]:
    """The Deployment as it is, but one replica of the image at hand, on ports of this machine.

    Its settings come with it. In place of the Secret, which the files only name, stands the folder
    ``keys``: podman 4.3 mounts a Secret's values without decoding them.
    """
    played = [document for document in overlay if document["kind"] in PLAYED]
    deployment = next(document for document in played if document["kind"] == "Deployment")
    deployment["spec"]["replicas"] = 1
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["image"] = image
    for port in container["ports"]:
        port.update(hostPort=ports[port["name"]], hostIP="127.0.0.1")
    (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
    del volume["secret"]
    volume["hostPath"] = {"path": keys, "type": "Directory"}
    return played


def ask(http_port: int, grpc_port: int, key: str) -> None:
    """The same answer over HTTP and gRPC, none without the key, and the gRPC probe's question."""
    urls = (f"http://127.0.0.1:{http_port}", f"grpc://127.0.0.1:{grpc_port}")
    answers = [_text(url, key) for url in urls]
    assert answers[0] == answers[1], answers
    assert answers[0], "an empty answer"
    for url in urls:
        refused = _refusal(url)
        assert refused == "invalid_api_key", f"{url} without a key: {refused}"
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        for service in HEALTH:
            request = health_pb2.HealthCheckRequest(service=service)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status
            assert status == health_pb2.HealthCheckResponse.SERVING, (service, status)


def _text(url: str, key: str | None) -> str:
    with Client(url, api_key=key, timeout=60) as client:
        return client.generate("Once upon a time", max_tokens=32, seed=1).outputs[0].text


def _refusal(url: str) -> str:
    try:
        return f"answered {_text(url, None)!r}"
    except PythiaError as error:
        return error.code


def main(command: str, *arguments: str) -> None:
    """As a program; a failed assertion is the answer's fault."""
    if command == "ask":
        ask(int(arguments[0]), int(arguments[1]), arguments[2])
        return
    path, image, http_port, grpc_port, keys = arguments
    overlay = list(yaml.safe_load_all(Path(path).read_text()))
    ports = {"http": int(http_port), "grpc": int(grpc_port)}
    yaml.safe_dump_all(manifest(overlay, image, ports, keys), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
