"""Pulls from a hub on loopback that tells a random story: odd answers, odd files, cuts.

Whatever it tells, nothing changes but the pull's own places, a refusal is one sentence, and what is
stored can be verified and loaded. After a refusal an honest hub is pulled from as if nothing were.
"""

from __future__ import annotations

import gzip
import json
import logging
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from transformers.utils import logging as theirs

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints import hub_client, hub_errors
from pythia_bento.checkpoints.branches import list_branches
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.resolve import verify
from pythia_bento.errors import PythiaError
from tests.fuzz.documents import one_sentence
from tests.fuzz.sandbox import Watch, tree
from tests.fuzz.structures import as_json, damaged, mutated
from tests.hub import Fault, HubServer
from tests.hub.places import bentoml_places, client_places
from tests.hub.server import _sibling
from tests.models import random_checkpoint

DIARY = "thesis.tex", ".docker/config.json", "bentoml/models/mine/1/model.yaml", "hf/token"
LOCATIONS = [
    *("file:///etc/passwd", "ftp://localhost/x", "http://", "//", "/", "", "http://[::1", "\u00ff"),
    *("http://localhost:1/x", "http://user:key@127.0.0.1:1/", "https://xn--0.invalid/", "x" * 9000),
    *("http://0.0.0.0:99999/", "/../../x", "data:text/plain,x", "http://127.0.0.1:0/"),
]


class Stage:
    """A hub, the places of its clients, and things beside them that nobody may touch."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        theirs.disable_progress_bar()
        self.source = random_checkpoint(  # what this imports makes folders of its own
            self.root / "source", layers=1, heads=1, head_dim=16, positions=64
        )
        self.watch = Watch(self.root)
        self.hub = HubServer(self.root / "hub").__enter__()
        (self.root / "tmp").mkdir()
        tempfile.tempdir = str(self.root / "tmp")  # BentoML writes a model there before it is one
        hub_client.PORTION_SECONDS = 2.0
        hub_errors._FIRST_WAIT = hub_errors._LONGEST_WAIT = 0.0
        constants.HF_HUB_DOWNLOAD_TIMEOUT = 2
        logging.disable(logging.WARNING)

    def reset(self) -> None:
        """Empty places, and the diary."""
        for name in ("hf", "bentoml", "hub", "odd"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for holder, name, value in client_places(self.hub.endpoint, self.root / "hf"):
            setattr(holder, name, value)
        for provider, place in bentoml_places(self.root / "bentoml").items():
            provider.set(place)
        self.hub.faults.clear()
        self.hub.folder.forget()
        self.hub.seen.clear()
        for name in DIARY:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"dear {name}")

    def untouched(self) -> dict[str, tuple[int, str]]:
        """All but where a pull may write."""
        own = ("hub", "tmp", "hf/pythia-bento", "bentoml/pythia-bento", "bentoml/client_id")
        models = self.root / "bentoml" / "models"
        stored = (*models.glob("*pythia-14m-int8"), *models.glob("*x-int8"))
        return tree(self.root, [*(self.root / name for name in own), *stored])


@cache
def stage(root: Path) -> Stage:
    return Stage(root)


def story(draw: random.Random, folder: Path) -> str:
    """One pull, or one list of branches."""
    scene = stage(folder)
    scene.reset()
    model = parse(draw.choice(["pythia-14m", "pythia-14m@step3000", "someone/x@v1"]))
    honest = _publish(draw, scene, model)
    commit = scene.hub.folder.refs(model.repository)[model.revision]
    if draw.random() < 0.3:
        model = model.at(commit)
    for _ in range(draw.choice([0, 1, 1, 1, 2, 4])):
        scene.hub.faults.add(_fault(draw, scene, model, commit))
    before = scene.untouched()
    said = _act(draw, model)
    outside, scene.watch.outside = scene.watch.outside, []
    changed = {name for name, _ in set(before.items()) ^ set(scene.untouched().items())}
    assert not changed and not outside, (changed, outside)
    if said == "refused" and honest and draw.random() < 0.2:
        scene.hub.faults.clear()
        pull(model)
        said = "refused, then pulled"
    return said


def _act(draw: random.Random, model: ModelId) -> str:
    try:
        if draw.random() < 0.15:
            list_branches(model)
            return "listed"
        pull(model)
    except PythiaError as error:
        one_sentence(error)
        return "refused"
    assert verify(Lock(), ask_hub=False) == []
    load_checkpoint(str(model)).source.layer(0)
    return "pulled"


def _publish(draw: random.Random, scene: Stage, model: ModelId) -> bool:
    """Put files on the hub; whether they are as they should be."""
    source, honest = scene.source, True
    if draw.random() < 0.3:
        honest = False
        source = shutil.copytree(scene.source, scene.root / "odd")
        name = draw.choice(["config.json", "tokenizer.json", "model.safetensors"])
        data = (source / name).read_bytes()
        if name.endswith(".json"):
            data = as_json(draw, mutated(draw, json.loads(data), draw.randint(1, 2)))
        (source / name).write_bytes(damaged(draw, data))
        if draw.random() < 0.2:
            (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
            index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
            odd = as_json(draw, mutated(draw, index, draw.randint(0, 2)))
            (source / "model.safetensors.index.json").write_bytes(odd)
    for branch in {model.revision, "main"}:
        scene.hub.folder.commit(model.repository, branch, source)
    return honest


def _fault(draw: random.Random, scene: Stage, model: ModelId, commit: str) -> Fault:
    """What the hub does instead, once or from now on, at one of the questions of a pull."""
    times = draw.choice([1, 1, 1, 3, 10**6])
    where = draw.choice(["info", "info", "info", "refs", "file", "file"])
    if where == "file":
        name = draw.choice(["/resolve/.*config.json", "tokenizer.json", "/cdn/", "/resolve/"])
        if draw.random() < 0.5:
            how = draw.choice(["cut_after", "flip_at", "truncate_to"])
            return Fault(name, times=times, **{how: draw.choice([0, 1, 500])})
        return _answer(draw, name, times, b"{}")
    if where == "refs":
        refs = {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": commit}]}
        return _answer(draw, "/refs", times, as_json(draw, mutated(draw, refs, draw.randint(0, 3))))
    return _answer(draw, "/revision/", times, _info(draw, scene, model, commit))


def _info(draw: random.Random, scene: Stage, model: ModelId, commit: str) -> bytes:
    files = scene.hub.folder.files(model.repository, commit)
    siblings = [_sibling(file, True) for file in files]
    info: Any = {"id": model.repository, "sha": commit, "siblings": siblings}
    if draw.random() < 0.2:
        info["sha"] = draw.choice(["../../.docker", str(scene.root), "0" * 40, "..", commit[:39]])
    return as_json(draw, mutated(draw, info, draw.randint(0, 3)))


def _answer(draw: random.Random, where: str, times: int, body: bytes) -> Fault:
    statuses = [200, 200, 200, 200, 204, 206, 302, 307, 400, 401, 403, 404, 416, 429, 500, 503]
    headers: dict[str, str] = {}
    if draw.random() < 0.3:
        name = draw.choice(["RepoNotFound", "GatedRepo", "RevisionNotFound", "EntryNotFound", "x"])
        headers["X-Error-Code"] = name
    if draw.random() < 0.2:
        headers["Retry-After"] = draw.choice(["0", "-1", "x", "9" * 30, "Wed, 21 Oct 2015 07:28"])
    if draw.random() < 0.3:
        headers["Location"] = draw.choice(LOCATIONS)
    if draw.random() < 0.1:
        ranges = ["bytes 0-9/10", "bytes 1-/", "x", "bytes */5"]
        headers["Content-Range"] = draw.choice(ranges)
    if draw.random() < 0.1:
        headers["Content-Encoding"], body = draw.choice(["gzip", "br", "x"]), gzip.compress(body)
    if draw.random() < 0.1:
        headers["Content-Length"] = draw.choice(["0", "1", str(len(body))])
    status = draw.choice(statuses)
    endless = "Content-Length" not in headers and draw.random() < 0.05
    body = b"" if status == 204 else body * 9 if endless else body
    return Fault(where, "GET", status, headers, body=body, endless=endless, times=times)
