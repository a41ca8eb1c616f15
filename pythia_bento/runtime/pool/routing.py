"""Which engine is given a request. Policy without processes.

Work is counted in prompt tokens. A request goes where least is to be done until it has its answer:
before it, of its own prompt, and to bring its checkpoint there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from pythia_bento.engine.params import Request

GENERATED = 8  # what a generated token takes, about, beside one of a prompt
GRAIN = 64  # tokens of a prompt that have a name together
# What bringing a checkpoint from the disk is worth: a second or two of an engine with much to do,
# and whatever has to make room for it comes back later. From the host's memory it is soon there.
LOAD, FROM_HOST = 2**19, 2**14


def names_of(request: Request) -> list[int]:
    """Of each beginning of a prompt, in steps of GRAIN tokens. A guess: names may collide."""
    prompt, name, names = request.prompt, hash(request.weights), []
    for start in range(0, len(prompt) - GRAIN + 1, GRAIN):
        name = hash((name, prompt[start : start + GRAIN]))
        names.append(name)
    return names


class Prefixes:
    """What an engine's prefix cache may know: of the prompts that it was given of late."""

    def __init__(self, tokens: int) -> None:
        """``tokens`` are those that its cache holds."""
        self._most = max(tokens // GRAIN, 1)
        self._names: OrderedDict[int, None] = OrderedDict()  # longest ago first

    def __len__(self) -> int:
        return len(self._names)

    def known(self, names: Sequence[int]) -> int:
        """Tokens of a prompt's beginning."""
        count = 0
        for name in names:
            if name not in self._names:
                break
            count += GRAIN
        return count

    def add(self, names: Sequence[int]) -> None:
        """A prompt was given to it; the ends of prompts are forgotten before their beginnings."""
        for name in reversed(names):
            self._names[name] = None
            self._names.move_to_end(name)
        while len(self._names) > self._most:
            self._names.popitem(last=False)
