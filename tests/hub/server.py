"""Serves a ``HubFolder`` the way the hub does: metadata, refs, trees, files, redirects, errors.

Files in LFS are redirected to a "CDN", which is this server under another host name, so that a
client that forwards its token there is seen.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.hub.faults import Fault, Faults
from tests.hub.folder import HubFile, HubFolder

PIECE = 16 * 1024


@dataclass(frozen=True)
class Seen:
    """One request, as the server saw it."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class HubServer:
    """A hub on 127.0.0.1 in a thread of its own; a context manager."""

    def __init__(self, root: Path) -> None:
        self.folder = HubFolder(root)
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.tokens: dict[str, str] = {}  # gated repository -> the token that opens it
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            self._app(), log_level="critical", lifespan="off", ws="none", timeout_keep_alive=1
        )
        self._server = uvicorn.Server(config)
        self._loop: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()  # of it, once
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="hub")

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.get().call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._socket.close()

    def fail(self, path: str, **what: object) -> None:
        """Let a later request fail; see ``Fault``."""
        self.faults.add(Fault(path, **what))  # type: ignore[arg-type]

    def requests(self, part: str, method: str = "GET") -> list[Seen]:
        """The requests so far whose path contains ``part``."""
        return [seen for seen in self.seen if seen.method == method and part in seen.path]

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        """As uvicorn does, without what it waits for by the clock: tests start many of these."""
        server = self._server
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([self._socket])
        self._loop.put(asyncio.get_running_loop())
        await self._is_over.wait()
        for listening in server.servers:
            listening.close()
        for _ in range(5):  # who was just let in becomes a connection some turns of the loop later
            for connection in list(server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]
            await asyncio.sleep(0)

    def _app(self) -> Starlette:
        model = "/api/models/{owner}/{name}"
        return Starlette(
            routes=[
                Route(f"{model}/revision/{{revision:path}}", self._guarded(self._info)),
                Route(f"{model}/tree/{{revision}}", self._guarded(self._tree)),
                Route(f"{model}/refs", self._guarded(self._refs)),
                Route(model, self._guarded(self._info)),
                Route(
                    "/{owner}/{name}/resolve/{revision}/{path:path}", self._guarded(self._resolve)
                ),
                Route("/cdn/{owner}/{name}/{revision}/{path:path}", self._guarded(self._cdn)),
            ]
        )

    def _guarded(self, handler):  # type: ignore[no-untyped-def]
        """Log the request, then faults, then access, then ``handler``."""

        async def guarded(request: Request) -> Response:
            path, headers = request.url.path, request.headers
            self.seen.append(
                Seen(request.method, path, headers.get("range"), headers.get("authorization"))
            )
            fault = self.faults.take(request.method, path)
            if fault is not None and fault.status is not None:
                return StreamingResponse(_instead(fault), fault.status, fault.headers)
            repo = f"{request.path_params['owner']}/{request.path_params['name']}"
            refusal = None if path.startswith("/cdn/") else self._refuse(request, repo)
            return refusal or handler(request, repo, fault)

        return guarded

    def _refuse(self, request: Request, repo: str) -> Response | None:
        if not self.folder.has(repo):
            return _error(404, "RepoNotFound", "Repository not found")
        token = self.tokens.get(repo)
        given = request.headers.get("authorization")
        if token is None or given == f"Bearer {token}":
            return None
        return _error(403 if given else 401, "GatedRepo", f"Access to model {repo} is restricted")

    def _info(self, request: Request, repo: str, fault: Fault | None) -> Response:
        commit = self.folder.resolve(repo, request.path_params.get("revision", "main"))
        if commit is None:
            return _error(404, "RevisionNotFound", "Invalid rev id")
        blobs = request.query_params.get("blobs", "").lower() == "true"
        siblings = [_sibling(file, blobs) for file in self.folder.files(repo, commit)]
        return JSONResponse({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings})

    def _tree(self, request: Request, repo: str, fault: Fault | None) -> Response:
        commit = self.folder.resolve(repo, request.path_params["revision"])
        if commit is None:
            return _error(404, "RevisionNotFound", "Invalid rev id")
        return JSONResponse([_tree_entry(file) for file in self.folder.files(repo, commit)])

    def _refs(self, request: Request, repo: str, fault: Fault | None) -> Response:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in self.folder.refs(repo).items()
        ]
        return JSONResponse({"branches": branches, "converts": [], "tags": []})

    def _resolve(self, request: Request, repo: str, fault: Fault | None) -> Response:
        commit = self.folder.resolve(repo, request.path_params["revision"])
        if commit is None:
            return _error(404, "RevisionNotFound", "Invalid rev id")
        headers = {"X-Repo-Commit": commit}
        file = self._file(request, repo, commit)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found", headers)
        if not file.is_lfs:
            return _content(request, file, fault, headers)
        headers["X-Linked-ETag"], headers["X-Linked-Size"] = f'"{file.etag}"', str(file.size)
        cdn = f"http://localhost:{self.port}/cdn/{repo}/{commit}/{file.name}"
        return Response(status_code=302, headers=headers | {"Location": cdn})

    def _cdn(self, request: Request, repo: str, fault: Fault | None) -> Response:
        file = self._file(request, repo, request.path_params["revision"])
        if file is None:
            return Response(status_code=404)
        return _content(request, file, fault, {})

    def _file(self, request: Request, repo: str, commit: str) -> HubFile | None:
        files = {file.name: file for file in self.folder.files(repo, commit)}
        return files.get(request.path_params["path"])


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    named = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
    return JSONResponse({"error": message}, status, named)


def _sibling(file: HubFile, blobs: bool) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": file.name}
    if blobs:
        entry |= {"size": file.size, "blobId": file.blob_id}
    if blobs and file.is_lfs:
        entry["lfs"] = {
            "sha256": file.sha256,
            "size": file.size,
            "pointerSize": file.pointer_size,
        }
    return entry


def _tree_entry(file: HubFile) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": file.name,
        "size": file.size,
        "oid": file.blob_id,
    }
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return entry


def _content(
    request: Request, file: HubFile, fault: Fault | None, headers: dict[str, str]
) -> Response:
    """The bytes of a file, or of the range that was asked for."""
    fault = fault or Fault("")
    data = _damaged(file.path.read_bytes(), fault)
    start, end = _range(request.headers.get("range"), len(data))
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    status = 200
    if "range" in request.headers:
        if start >= len(data):
            return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_pieces(data[start:end], fault), status, headers)


def _damaged(data: bytes, fault: Fault) -> bytes:
    if fault.flip_at is not None:
        changed = bytearray(data)
        changed[fault.flip_at] ^= 0xFF
        data = bytes(changed)
    return data if fault.truncate_to is None else data[: fault.truncate_to]


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First and last plus one of ``bytes=a-b`` or ``bytes=a-``."""
    if header is None:
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), min(int(last) + 1, size) if last else size


async def _instead(fault: Fault) -> AsyncIterator[bytes]:
    yield fault.body
    while fault.endless:
        await asyncio.sleep(fault.delay)
        yield fault.body


async def _pieces(data: bytes, fault: Fault) -> AsyncIterator[bytes]:
    limit = len(data) if fault.cut_after is None else fault.cut_after
    for start in range(0, min(limit, len(data)), PIECE):
        await asyncio.sleep(fault.delay)
        yield data[start : min(start + PIECE, limit)]
    if limit < len(data):
        raise ConnectionAbortedError("cut on demand")
