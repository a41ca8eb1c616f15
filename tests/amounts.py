"""How much of the same a test tries: a little in ``make test``, all of it in ``make test-long``.

Neither counts for coverage (``no_cover``): many cases pass where some have been, half as fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def amounts(few: int, many: int) -> pytest.MarkDecorator:
    """The argument ``amount``."""
    marks = pytest.mark.no_cover
    rest = pytest.param(many, marks=[marks, pytest.mark.long])
    return pytest.mark.parametrize("amount", [pytest.param(few, marks=marks), rest])


def rest_long(first: Iterable[Any], rest: Iterable[Any]) -> list[Any]:
    """Parameters: the first as they are, the rest only for ``make test-long``."""
    return [*first, *(pytest.param(value, marks=pytest.mark.long) for value in rest)]
