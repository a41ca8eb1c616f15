"""Encrypted connections, with certificates made here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import trustme

from pythia_bento.client import AsyncClient, Client, Tls
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.server import GrpcServer
from pythia_bento.settings import Settings, SettingsError
from tests.grpc_parts import HOST
from tests.unit.server.grpc.conftest import serving


class Files:
    """PEM files of two authorities, a server and a client."""

    def __init__(self, folder: Path) -> None:
        authority, other = trustme.CA(), trustme.CA()
        server, client = authority.issue_cert("localhost", HOST), authority.issue_cert("alice")
        stranger = other.issue_cert("mallory")
        self.ca, self.other_ca = folder / "ca.pem", folder / "other.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        other.cert_pem.write_to_path(str(self.other_ca))
        self.server = _written(server, folder / "server")
        self.client = _written(client, folder / "client")
        self.stranger = _written(stranger, folder / "stranger")

    def settings(self, **more: Any) -> dict[str, Any]:
        cert, key = self.server
        return {"grpc_tls_cert": str(cert), "grpc_tls_key": str(key), **more}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


async def test_tls(runner: PythiaRunner, files: Files) -> None:
    async with serving(runner, **files.settings()) as server:
        url = f"grpcs://localhost:{server.port}"
        assert await _tokens(url, Tls(ca=files.ca))
        assert await asyncio.to_thread(_tokens_sync, url, Tls(ca=files.ca))
        with pytest.raises(EngineUnavailable):
            await _tokens(url, Tls(ca=files.other_ca))
        with pytest.raises(EngineUnavailable):
            await _tokens(f"grpc://localhost:{server.port}", None)


async def test_mutual_tls(runner: PythiaRunner, files: Files) -> None:
    settings = files.settings(grpc_tls_client_ca=str(files.ca))
    async with serving(runner, **settings) as server:
        url = f"grpcs://localhost:{server.port}"
        assert await _tokens(url, Tls(files.ca, *files.client))
        for tls in (Tls(files.ca), Tls(files.ca, *files.stranger)):
            with pytest.raises(EngineUnavailable):
                await _tokens(url, tls)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="grpc_tls_cert and grpc_tls_key must be set together"):
        Settings(grpc_tls_cert="a.pem")
    with pytest.raises(ValueError, match="grpc_tls_client_ca needs grpc_tls_cert"):
        Settings(grpc_tls_client_ca="a.pem")


async def test_files_that_are_not_there(runner: PythiaRunner, files: Files) -> None:
    settings = Settings(
        grpc_host=HOST, grpc_port=0, **files.settings(grpc_tls_key="/nowhere/key.pem")
    )
    with pytest.raises(SettingsError, match=r"grpc_tls_key \(PYTHIA_GRPC_TLS_KEY\).*/nowhere"):
        GrpcServer(runner, settings, AccessControl(None))


async def test_files_that_are_no_certificates(runner: PythiaRunner, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("not PEM")
    name = str(tmp_path / "x.pem")
    settings = Settings(grpc_host=HOST, grpc_port=0, grpc_tls_cert=name, grpc_tls_key=name)
    with pytest.raises(SettingsError, match="gRPC cannot listen"):
        GrpcServer(runner, settings, AccessControl(None))


async def _tokens(url: str, tls: Tls | None) -> list[int]:
    async with AsyncClient(url, tls=tls, timeout=30) as client:
        return await client.tokenize("the end")


def _tokens_sync(url: str, tls: Tls) -> list[int]:
    with Client(url, tls=tls, timeout=30) as client:
        return client.tokenize("the end")


def _written(issued: trustme.LeafCert, stem: Path) -> tuple[Path, Path]:
    cert, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return cert, key
