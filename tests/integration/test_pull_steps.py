"""``pull --steps`` against a hub on loopback: many steps, equal weights, and what goes wrong."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pythia_bento.catalog import STEPS, parse
from pythia_bento.checkpoints import plan as planning
from pythia_bento.checkpoints import pull as pulling
from pythia_bento.checkpoints import store
from pythia_bento.checkpoints.files import FileHash, sha256
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.plan import make_plan
from pythia_bento.checkpoints.prepare import prepare
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.pull_steps import pull_steps
from pythia_bento.checkpoints.resolve import locate, make_pin, verify
from pythia_bento.checkpoints.stored_model import StoredModel
from pythia_bento.errors import CheckpointError
from tests.amounts import amounts
from tests.hub import HubServer
from tests.hub.child import Puller, all_steps
from tests.models import random_checkpoint

REPO = "EleutherAI/pythia-14m"
NAME = parse("pythia-14m")
WEIGHTS = "model.safetensors"
PLACES = {"main": "a", "step0": "b", "step1": "b", "step2": "a", "step1000": "c", "step2000": "d"}
STEP_LIST = "0,1,2,1000,2000"


@pytest.fixture(scope="session")
def more_sources(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those and two others, all with one tokenizer."""
    root = tmp_path_factory.mktemp("more")
    for name in "ab":
        shutil.copytree(sources / name, root / name)
    for seed, name in enumerate("cd", 2):
        random_checkpoint(root / name, heads=2, head_dim=16, seed=seed)
    return root


@pytest.fixture
def steps(hub: HubServer, bento_home: Path, more_sources: Path) -> dict[str, str]:
    """Commit by branch: step0 is step1, and step2 is main, byte by byte."""
    return {
        branch: hub.folder.commit(REPO, branch, more_sources / source)
        for branch, source in PLACES.items()
    }


def stored(step: int) -> StoredModel:
    return locate(parse(f"pythia-14m@step{step}"), Lock())


def pulled(outcomes: list) -> set[str]:  # type: ignore[type-arg]
    return {each.model.revision for each in outcomes if each.pulled}


def contents() -> dict[str, str]:
    """Hash of every file that serves, by model and name."""
    return {
        f"{found.origin.revision}/{name}": sha256(found.path / name)
        for found in store.stored_models()
        for name in found.origin.files
    }


def test_side_by_side_gives_the_bytes_of_one_by_one(
    steps: dict[str, str], bento_home: Path
) -> None:
    for branch in sorted(steps.keys() - {"main"}):
        pull(NAME.at(branch))
    expected = contents()
    shutil.rmtree(bento_home / "models" / "pythia-14m-int8")
    outcomes = all_steps(NAME, STEP_LIST, jobs=4)
    assert len(pulled(outcomes)) == 5
    assert contents() == expected
    assert verify(Lock(), ask_hub=False) == []
    assert all(not each.pulled.was_there for each in outcomes if each.pulled)
    assert all(each.pulled.was_there for each in all_steps(NAME, STEP_LIST) if each.pulled)


def test_metadata_is_asked_for_once(hub: HubServer, steps: dict[str, str]) -> None:
    all_steps(NAME, STEP_LIST)
    assert len(hub.requests("/refs")) == 1
    asked = [seen.path for seen in hub.requests("/revision/")]
    assert len(asked) == len(set(asked)) == len(PLACES)


def test_equal_weights_come_once_and_are_one_file(hub: HubServer, steps: dict[str, str]) -> None:
    all_steps(NAME, STEP_LIST)
    fetched = [seen.path.split("/")[-2] for seen in hub.requests("/cdn/")]
    assert len(fetched) == 4 and not {steps["step0"], steps["step1"]} <= set(fetched)
    zero, one, two = (stored(step).path for step in (0, 1, 2))
    assert (zero / WEIGHTS).samefile(one / WEIGHTS)
    assert not (zero / WEIGHTS).samefile(two / WEIGHTS)
    assert (zero / "tokenizer.json").samefile(
        two / "tokenizer.json"
    )  # equal, though others' weights are not
    assert "step1" in stored(0).origin.same_weights and "main" in stored(2).origin.same_weights


def test_a_lone_pull_uses_what_is_there(hub: HubServer, steps: dict[str, str]) -> None:
    first = pull(NAME.at("step0")).model
    second = pull(NAME.at("step1")).model
    assert len(hub.requests("/cdn/")) == 1
    assert (first.path / WEIGHTS).samefile(second.path / WEIGHTS)
    assert second.origin.source_files == first.origin.source_files
    store.discard(first)
    assert second.check() == []


def test_damaged_weights_are_not_passed_on(hub: HubServer, steps: dict[str, str]) -> None:
    path = pull(NAME.at("step0")).model.path / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    second = pull(NAME.at("step1")).model
    assert second.check() == [] and (second.path / WEIGHTS).read_bytes() == whole
    assert len(hub.requests("/cdn/")) == 2
    assert pulled(all_steps(NAME, "0,1")) == {"step0", "step1"}
    assert verify(Lock(), ask_hub=False) == []


def test_a_damaged_tokenizer_is_not_passed_on(steps: dict[str, str]) -> None:
    path = pull(NAME.at("step0")).model.path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    other = pull(NAME.at("step2")).model
    assert other.check() == [] and not (other.path / "tokenizer.json").samefile(path)


def test_weights_that_the_lock_does_not_allow_are_made_anew(
    hub: HubServer, steps: dict[str, str]
) -> None:
    model = NAME.at("step1")
    pull(NAME.at("step0"))
    pin = make_pin(model).model_copy(update={"int8": {WEIGHTS: FileHash(sha256="a" * 64)}})
    with pytest.raises(CheckpointError, match=r"not what the lock pins: model\.safetensors"):
        pull(model, Lock().pinning(model, pin))
    assert len(hub.requests("/cdn/")) == 2  # and not the file that is there


def test_one_downloads_while_another_is_quantised(
    hub: HubServer, steps: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = tmp_path / "hf" / "pythia-bento" / REPO.replace("/", "--")
    counts, busy, enough = [], threading.Lock(), time.monotonic() + 60

    def watched(*arguments: Any) -> str:
        assert busy.acquire(blocking=False), "two were quantised at a time"
        try:
            while not counts and len(hub.requests("/cdn/")) < 2 and time.monotonic() < enough:
                time.sleep(0.01)
            assert counts or len(hub.requests("/cdn/")) >= 2, "the next waited for this one"
            counts.append(len(list(originals.iterdir())))
            return prepare(*arguments)
        finally:
            busy.release()

    monkeypatch.setattr(pulling, "prepare", watched)
    assert len(pulled(all_steps(NAME, STEP_LIST, jobs=1))) == 5
    assert len(counts) == 4 and max(counts) <= 2
    assert list(originals.iterdir()) == []


def test_damage_to_a_shared_file_is_mended_for_all(steps: dict[str, str]) -> None:
    all_steps(NAME, "0,1")
    shared = stored(0).path / WEIGHTS
    shared.write_bytes(b"damaged")
    assert len(verify(Lock(), ask_hub=False)) == 2
    assert len(pulled(all_steps(NAME, "0,1"))) == 2
    assert verify(Lock(), ask_hub=False) == []
    assert (stored(0).path / WEIGHTS).samefile(stored(1).path / WEIGHTS)


def test_without_links_they_are_copies(
    steps: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert len(pulled(all_steps(NAME, "0,1"))) == 2
    zero, one = stored(0).path / WEIGHTS, stored(1).path / WEIGHTS
    assert not zero.samefile(one) and zero.read_bytes() == one.read_bytes()


def test_a_missing_step_and_a_failing_one_do_not_stop_the_others(
    hub: HubServer, steps: dict[str, str]
) -> None:
    hub.fail(f"/cdn/.*{steps['step1000']}", flip_at=900)
    hub.fail(f"/revision/{steps['step2000']}", status=403)
    plan = make_plan(NAME, "0,1,2,4,1000,2000", Lock())
    assert {id: error.message for id, error in plan.problems.items()} == {
        "pythia-14m@step4": f"{REPO} has no revision 'step4' on the hub",
        "pythia-14m@step2000": f"the hub answered 403 for pythia-14m@{steps['step2000']}; pull "
        "again to resume",
    }
    outcomes = all_steps(NAME, "0,1,2,1000")
    [failed] = [each for each in outcomes if each.error]
    assert failed.model.revision == "step1000" and failed.error is not None
    assert "not what the hub's metadata says" in failed.error.message
    assert pulled(outcomes) == {"step0", "step1", "step2"}
    assert pulled(all_steps(NAME, STEP_LIST)) == PLACES.keys() - {"main"}


def test_the_next_has_to_fetch_what_the_first_of_its_weights_could_not(
    hub: HubServer, steps: dict[str, str]
) -> None:
    hub.fail(f"/cdn/.*{steps['step0']}", flip_at=900)
    outcomes = all_steps(NAME, "0,1")
    assert pulled(outcomes) == {"step1"}
    assert stored(1).check() == []


def test_all_of_the_suite_is_planned_and_what_the_hub_lacks_is_told(steps: dict[str, str]) -> None:
    plan = make_plan(NAME, "all", Lock())
    assert [step.model.step for step in plan.steps] == [0, 1, 2, 1000, 2000]
    assert len(plan.problems) == len(STEPS) - 5
    assert plan.num_weights == 4
    log = make_plan(NAME, "log", Lock())
    assert [step.model.step for step in log.steps] == [0, 1, 2, 1000, 2000]
    ranged = make_plan(NAME, "1000:2000:1000", Lock())
    assert [step.model.step for step in ranged.steps] == [1000, 2000] and not ranged.problems


def test_of_others_repositories_all_is_what_the_hub_has(
    hub: HubServer, bento_home: Path, more_sources: Path
) -> None:
    copy = parse("someone/copy")
    for branch in ("main", "step7", "step11", "draft"):
        hub.folder.commit(copy.repository, branch, more_sources / "a")
    assert pulled(all_steps(copy, "all")) == {"step7", "step11"}


def test_pinned_steps_come_at_their_commit(
    hub: HubServer, steps: dict[str, str], more_sources: Path
) -> None:
    model = NAME.at("step1000")
    lock = Lock().pinning(model, make_pin(model))
    hub.folder.commit(REPO, "step1000", more_sources / "a")
    [step] = make_plan(NAME, "1000", lock).steps
    assert step.source.commit == steps["step1000"]


def test_bytes_of_a_plan_are_those_that_come(hub: HubServer, steps: dict[str, str]) -> None:
    plan = make_plan(NAME, STEP_LIST, Lock())
    small = plan.steps[1]
    assert small.twin == "step0" and small.size < plan.steps[0].size
    heard: list[tuple[int, int]] = []
    for _ in pull_steps(
        plan, Lock(), 3, lambda *state: None, lambda what, *state: heard.append(state)
    ):
        pass
    assert {total for _, total in heard} == {plan.download}
    assert max(done for done, _ in heard) == plan.download
    again = make_plan(NAME, STEP_LIST, Lock())
    assert (again.download, again.keep) == (0, 0)
    links = {path.stat().st_ino: path.stat().st_size for path in bento_files()}
    assert again.kept == sum(links.values())
    assert plan.keep >= again.kept - 5_000  # it counts the tokenizer for each


def bento_files() -> list[Path]:
    return [found.path / name for found in store.stored_models() for name in found.origin.files]


def test_what_does_not_fit_is_said_before(
    steps: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(NAME, STEP_LIST, Lock())
    assert plan.shortage(2) == ""
    usage = shutil.disk_usage("/")._replace(free=plan.keep)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda place: usage)
    assert "5 steps of pythia-14m take about" in plan.shortage(2)


@pytest.fixture
def puller(hub: HubServer, steps: dict[str, str], bento_home: Path, tmp_path: Path) -> Puller:
    return Puller(hub.endpoint, tmp_path / "hf", bento_home, NAME)


def test_a_disk_that_becomes_full_begins_nothing_more(puller: Puller) -> None:
    first, second = puller.steps_on_full_disk("2,1000,2000")
    assert sum("the disk is full" in message for message in first) in (1, 2)
    assert all("disk is full" in said or "was not begun" in said for said in first)
    assert any("was not begun" in said for said in first)
    assert second == ["pulled"] * 3


MANY = 12  # kills


@amounts(2, MANY)
def test_killed_pulls_go_on(hub: HubServer, puller: Puller, bento_home: Path, amount: int) -> None:
    all_steps(NAME, STEP_LIST)
    expected = contents()
    puller.start_steps("0").join()  # imports take longer than all that follows
    hub.fail("/cdn/", delay=0.1, times=10**6)
    generator, killed, enough = random.Random(0), 0, None
    shutil.rmtree(bento_home / "models" / "pythia-14m-int8")
    while killed < amount:
        process, started = puller.start_steps(STEP_LIST), time.monotonic()
        process.join(enough and generator.uniform(0, enough))
        process.kill()
        process.join()
        assert verify(Lock(), ask_hub=False) == []
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            continue
        took = time.monotonic() - started
        enough = min(enough or took, took)
        assert contents() == expected
        shutil.rmtree(bento_home / "models" / "pythia-14m-int8")
    assert pulled(all_steps(NAME, STEP_LIST)) == PLACES.keys() - {"main"}
    assert contents() == expected
