"""How likely a token was, as a colour: certain ones are plain, surprises stand out.

rich leaves colours out where there is no terminal, and where ``NO_COLOR`` is set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# From this probability on; the last is of all that is less likely.
STYLES = ((0.5, ""), (0.1, "yellow"), (0.01, "dark_orange"), (0.0, "red"))


def style_of(logprob: float) -> str:
    """rich's style of a token with this log-probability."""
    return next(style for least, style in STYLES if math.exp(logprob) >= least)


class Writer:
    """Writes text to standard output as it comes, in colours where the terminal has them."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)
        self.has_colours = self._console.color_system is not None and not self._console.no_color
        self._held: list[float] = []

    def write(self, text: str, logprobs: Iterable[float] = ()) -> None:
        """Text and the tokens that came with it; it may be that of tokens before, held back."""
        self._held += logprobs
        if text:
            from rich.text import Text

            style = style_of(min(self._held, default=0.0))
            self._console.print(Text(text, style), end="")
            self._held.clear()
