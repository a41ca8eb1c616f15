"""Which positions of a prompt are meant."""

from __future__ import annotations

from pythia_bento.engine.capture import Positions
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.interventions import PositionsOf, Span

END = 2**31  # behind all positions


def positions_of(spec: PositionsOf, prompt: int, inputs: int, field: str) -> Positions:
    """Rising, each once. ``prompt`` are its tokens, ``inputs`` all that may be computed of it.

    Raises InvalidRequest where a number names no input.
    """
    if isinstance(spec, tuple):
        return tuple(sorted({_place(one, prompt, inputs, field) for one in spec}))
    if isinstance(spec, Span):
        start = 0 if spec.start is None else spec.start
        stop = END if spec.stop is None else spec.stop
        start, stop = (max(end + prompt, 0) if end < 0 else end for end in (start, stop))
        return range(start, max(start, stop))
    if spec == "last":
        return (prompt - 1,)
    return {"all": range(END), "prompt": range(prompt), "generated": range(prompt, END)}[spec]


def _place(one: int, prompt: int, inputs: int, field: str) -> int:
    place = one + prompt if one < 0 else one
    if not 0 <= place < inputs:
        more = f" and at most {inputs - prompt} behind it" if inputs > prompt else ""
        raise InvalidRequest(
            f"{field}.positions holds {one}, but the prompt has {prompt} tokens{more}",
            param=f"{field}.positions",
        )
    return place


def of_prompt(spec: PositionsOf, prompt: int, field: str) -> tuple[int, ...]:
    """Those in the prompt alone, counted: "all" are all of it.

    Raises InvalidRequest where some cannot be.
    """
    found = positions_of("prompt" if spec == "all" else spec, prompt, prompt, field)
    if isinstance(found, tuple):  # of which each was looked at
        return found
    if found.stop > prompt and found.start >= prompt:
        raise InvalidRequest(
            f"{field}.positions must be in the prompt where each has values of its own",
            param=f"{field}.positions",
        )
    return tuple(range(found.start, min(found.stop, prompt)))  # which may be without an end
