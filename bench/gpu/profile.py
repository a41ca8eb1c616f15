"""Does the host wait inside a decode replay? ``python -m bench.gpu.profile``.

Records some decode visits with torch.profiler (CUPTI): graph launches, kernels, copies, and every
call by which the host waits for the device. A *replay* is everything between the first call of
``CapturedDecode.start`` or ``extend`` and its return, which queues the graphs of the steps and the
copy of their tokens: no wait may be in it, and the exit status is 1 if one is. The one wait of a
visit is that for its tokens. PyTorch's own check (``torch.cuda.set_sync_debug_mode``) is on, too.

On a processor (``--device cpu``) it runs over ``bench.serving.instant`` and finds no device work.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.common.options import parser_of
from bench.gpu import engines, harness
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import ChunkResult, Executor
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.executor import make_executor
from pythia_bento.executor.flights import StepsInFlight
from pythia_bento.executor.lookahead import Lookahead

REPLAY, READ = "bench: replay", "bench: read tokens"
WAITS = frozenset(
    {
        *("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
        *("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize", "cudaMemcpy"),
    }
)
ALLOCATIONS = ("cudaMalloc", "cudaFree", "cudaHostAlloc", "cuMem")  # how their names begin
RUNTIME = ("cuda_runtime", "cuda_driver")
DEVICE = {"kernel": "kernels", "gpu_memcpy": "memcpy", "gpu_memset": "memset"}

Event = Mapping[str, Any]  # of Chrome's trace format: name, cat, ts and dur in microseconds


def main() -> None:
    options = _options()
    batches = [int(batch) for batch in options.batches.split(",")]
    # CUPTI must know of graphs when they are made, and must not be taken down between profiles.
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    if options.device == "cuda":
        _record(lambda: torch.zeros(1, device="cuda").add_(1))
    context = options.prompt + options.new
    make = watched if options.device == "cuda" else watched_clock
    engine = engines.load(options.model, options.device, max(batches), context, 8192, make)
    rows = []
    for batch in batches:
        events, steps = visits(engine, batch, options)
        found = summarise(events)
        rows.append({"model": options.model, "backend": "pythia-bento w8a16", "batch": batch})
        rows[-1] |= {"visits": options.visits, "steps": steps, **found}
        rows[-1]["kernels_per_step"] = round(found["kernels"] / steps, 1)
        print(json.dumps(rows[-1], indent=1), flush=True)
        harness.write(options.out, rows)
    waits = sum(sum(row["waits_in_replay"].values()) for row in rows)
    print(f"host waits inside {sum(row['replays'] for row in rows)} replays: {waits}")
    if options.device == "cuda":
        for row in rows:
            check(row)
    sys.exit(waits > 0)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.gpu.profile", __doc__)
    engines.add_arguments(parser, "h200-profile.json")
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--visits", type=int, default=8)
    return parser.parse_args()


def watched(*known: Any) -> Executor:
    """An executor whose look-ahead is marked in the profile."""
    executor: Any = make_executor(*known)
    watch(executor.ahead)
    return executor


def watched_clock(*known: Any) -> Executor:
    """The same of one that computes nothing."""
    from bench.serving.instant import InstantExecutor

    executor = InstantExecutor(*known)
    watch(executor.ahead)
    return executor


def watch(lookahead: Lookahead) -> None:
    """Mark the look-ahead's calls in the profile, under PyTorch's check for waits."""
    device: Any = lookahead.device
    device.start = _marked(device.start)
    device.extend = _marked(device.extend)


def _marked(call: Callable[..., StepsInFlight]) -> Callable[..., StepsInFlight]:
    def marked(*args: Any) -> StepsInFlight:
        _forbid_waits(True)
        try:
            with record_function(REPLAY):
                flight = call(*args)
        finally:
            _forbid_waits(False)

        def results() -> list[ChunkResult]:
            with record_function(READ):
                return flight.results()

        return replace(flight, results=results)

    return marked


def _forbid_waits(forbid: bool) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("error" if forbid else "default")


def visits(engine: Engine, batch: int, options: argparse.Namespace) -> tuple[list[Event], int]:
    """The trace of some visits after the first ones, and how many steps they made."""
    params = SamplingParams(max_tokens=options.new, temperature=0.0, ignore_eos=True)
    last = engine.tokenizer.num_tokens - 1
    ids = [f"{batch}-{i}" for i in range(batch)]
    for number, id in enumerate(ids):
        prompt = tuple(1 + (number * 131 + i * 17) % last for i in range(options.prompt))
        engine.add_request(Request(id, prompt, params))
    begun: set[str] = set()
    while len(begun) < batch:
        begun |= {output.request_id for output in engine.step()}
    for _ in range(3):
        engine.step()
    tokens = 0

    def some() -> None:
        nonlocal tokens
        for _ in range(options.visits):
            tokens += sum(len(output.token_ids) for output in engine.step())

    events = _record(some)
    for id in ids:
        engine.abort(id)
    return events, tokens // batch


def _record(call: Callable[[], Any]) -> list[Event]:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        call()
        harness.now()  # the device is done
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return [event | {"name": plain(event["name"])} for event in events if event.get("ph") == "X"]


def plain(name: str) -> str:
    """A call's name without the version or stream suffix that CUPTI may give it."""
    return re.sub(r"(_v\d+|_ptsz|_ptds)+$", "", name)


def summarise(events: Sequence[Event]) -> dict[str, Any]:
    """Counts of what the host asked for and where it waited, and how busy the device was."""
    host = [event for event in events if event.get("cat") != "gpu_user_annotation"]
    replays = [_span(event) for event in host if event["name"] == REPLAY]
    reads = [_span(event) for event in host if event["name"] == READ]
    calls = [event for event in events if event.get("cat") in RUNTIME]
    counted = Counter(DEVICE[e["cat"]] for e in events if e.get("cat") in DEVICE)
    waits = [event for event in calls if event["name"] in WAITS]
    allocations = [event for event in calls if event["name"].startswith(ALLOCATIONS)]
    pageable = [e for e in events if e.get("cat") == "gpu_memcpy" and "Pageable" in e["name"]]
    work = [_span(event) for event in events if event.get("cat") in DEVICE]
    return {
        "replays": len(replays),
        "graph_launches": sum("GraphLaunch" in call["name"] for call in calls),
        "kernel_launches_in_replay": len(
            [c for c in calls if "LaunchKernel" in c["name"] and _within(c, replays)]
        ),
        **{name: counted[name] for name in DEVICE.values()},
        "pageable_copies": len(pageable),
        "allocations_in_replay": _names(call for call in allocations if _within(call, replays)),
        "waits_in_replay": _names(wait for wait in waits if _within(wait, replays)),
        "waits_for_tokens": _names(wait for wait in waits if _within(wait, reads)),
        "waits_elsewhere": _names(wait for wait in waits if not _within(wait, replays + reads)),
        "gpu_busy_share": round(busy_share(work), 3),
    }


def check(row: Mapping[str, Any]) -> None:
    """Raise RuntimeError when the profile is blind: graphs and waits that happen must be in it."""
    if not row["graph_launches"] or not row["kernels"]:
        raise RuntimeError(f"batch {row['batch']}: the profile shows no graphs or no kernels")
    if not sum(row["waits_for_tokens"].values()):
        raise RuntimeError(f"batch {row['batch']}: the profile does not show the wait for tokens")


def _span(event: Event) -> tuple[float, float]:
    return float(event["ts"]), float(event["ts"]) + float(event.get("dur", 0))


def _within(event: Event, spans: Iterable[tuple[float, float]]) -> bool:
    start, _ = _span(event)
    return any(first <= start <= last for first, last in spans)


def _names(events: Iterable[Event]) -> dict[str, int]:
    return dict(sorted(Counter(event["name"] for event in events).items()))


def busy_share(spans: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that some span covers."""
    ordered = sorted(spans)
    if not ordered:
        return 0.0
    covered, reach = 0.0, ordered[0][0]
    for start, end in ordered:
        covered += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return covered / (reach - ordered[0][0]) if reach > ordered[0][0] else 0.0


if __name__ == "__main__":
    main()
