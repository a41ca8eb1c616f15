"""The hub's failures: which of them pass, and what the others are to a user."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints.files import RemoteFile
from pythia_bento.errors import CheckpointError, ModelNotFound

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, or a limit on file sizes
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_RETRIES = 4
_FIRST_WAIT = 0.5  # seconds, doubled with every retry
_LONGEST_WAIT = 300.0
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class NotServable(CheckpointError):
    """The repository lacks files that serving needs."""


class DiskFull(CheckpointError):
    """There is no room for what is to be written."""


def retrying(call: Callable[[], _Result], sleep: Callable[[float], None] | None = None) -> _Result:
    """Call again after errors that pass, as late as the hub asks."""
    for attempt in range(_RETRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _TRANSIENT:
                raise
            wait, problem = _wait(error.response.headers, attempt), str(error.response.status_code)
        except httpx2.TransportError as error:
            wait, problem = _FIRST_WAIT * 2**attempt, repr(error)
        _log.warning("the hub failed (%s); trying again in %.1f s", problem, wait)
        (sleep or time.sleep)(wait)
    return call()


def _wait(headers: Any, attempt: int) -> float:
    """Seconds until the next try: what the hub says, else doubling."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return min(float(limit.reset_in_seconds), _LONGEST_WAIT)
    asked = str(headers.get("retry-after", ""))
    return min(float(asked), _LONGEST_WAIT) if asked.isdigit() else _FIRST_WAIT * 2**attempt


@contextmanager
def translated(model: ModelId, file: RemoteFile | None = None) -> Iterator[None]:
    """Turn the library's errors into ours."""
    what = f"{file.name} of {model}" if file else str(model)
    try:
        yield
    except GatedRepoError:
        raise CheckpointError(
            f"{model.repository} is gated: accept its terms on the hub, and log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"the hub has no repository {model.repository}, or hides it from this token",
            param="model",
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFound(
            f"{model.repository} has no revision {model.revision!r} on the hub", param="model"
        ) from None
    except OfflineModeIsEnabled:
        raise CheckpointError(
            f"{what} is not at hand, and HF_HUB_OFFLINE forbids asking the hub"
        ) from None
    except HfHubHTTPError as error:
        raise CheckpointError(
            f"the hub answered {error.response.status_code} for {what}; pull again to resume"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise CheckpointError(
            f"{constants.ENDPOINT} cannot be reached for {what} ({error}); pull again to resume"
        ) from None
    except OSError as error:
        raise not_written(error.errno, f"{what} cannot be downloaded: {error}") from None


def not_written(number: int | None, sentence: str) -> CheckpointError:
    """What to raise where the system refused to write, by its number for the reason."""
    if number in FULL:
        return DiskFull(f"the disk is full: {sentence}")
    return CheckpointError(sentence)
