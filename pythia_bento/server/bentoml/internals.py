"""Parts of BentoML, and of what it brings, that have no public name: found by where they stand.

All that this package reads or replaces of them comes through here, so that a version in which one
is not there any more is met with an error that names it, and never with a change of nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache, reduce
from importlib import import_module
from importlib.metadata import packages_distributions, version
from typing import Any

from bentoml.exceptions import BentoMLException

logger = logging.getLogger(__name__)

CONTAINER = "bentoml._internal.configuration.containers:BentoMLContainer"


class MissingInternal(BentoMLException):
    """An installed package has no such part."""

    def __init__(self, path: str, kind: str = "") -> None:
        super().__init__(f"{_package(path)} has no {kind}{path}, which pythia-bento builds on")


def internal(path: str) -> Any:
    """What stands at ``module:name.name``, where a name may be a dictionary's key.

    Raises MissingInternal.
    """
    module, _, names = path.partition(":")
    try:
        return reduce(_step, names.split("."), import_module(module))
    except (ImportError, AttributeError, KeyError) as error:
        raise MissingInternal(path) from error


def attribute(owner: Any, name: str) -> Any:
    """An attribute of an instance of one of these parts; raises MissingInternal."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        kind = type(owner)
        raise MissingInternal(f"{kind.__module__}:{kind.__qualname__}.{name}") from error


def replace(path: str, value: Any) -> None:
    """Let ``value`` stand at ``path``, in the whole process; raises MissingInternal."""
    internal(path)
    module, _, names = path.partition(":")
    *owners, name = names.split(".")
    owner = reduce(_step, owners, import_module(module))
    if isinstance(owner, MutableMapping):
        owner[name] = value
    else:
        setattr(owner, name, value)


@contextmanager
def optional(instead: str) -> Iterator[None]:
    """What is done inside makes the service faster, not safer or more correct.

    Where an internal is missing, one line of log says so and what is done ``instead``.
    """
    try:
        yield
    except MissingInternal as error:
        logger.warning("%s: %s", error.message, instead)


def _step(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, MutableMapping) else getattr(owner, name)


def _package(path: str) -> str:
    """Name and version of the package that a path leads into."""
    module = path.partition(":")[0].partition(".")[0]
    names = _distributions().get(module)
    return f"{names[0]} {version(names[0])}" if names else "this environment"


@cache
def _distributions() -> Mapping[str, list[str]]:
    """By the name of a module; all that is installed is read for it, which is done once."""
    return packages_distributions()
