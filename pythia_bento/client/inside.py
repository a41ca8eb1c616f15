"""What is asked of the inside of forward passes, in the words of every transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pythia_bento.client.options import checked
from pythia_bento.client.specs import Spec, capture_of, intervention_of, plain, plain_fields
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.site_names import OURS, Names, check_names, ours
from pythia_bento.protocol.types import Prompt

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Fields of a body, and the arrays that they name."""

    fields: dict[str, Any]
    tensors: dict[str, Array] = field(default_factory=dict)
    names: Names = OURS


def activations_of(
    prompts: Prompt | Sequence[Prompt],
    capture: Spec | Sequence[Spec],
    model: str | None,
    interventions: Sequence[Mapping[str, Any]],
    logits: Mapping[str, Any] | None,
    dtype: str,
    names: str,
    options: Mapping[str, Any],
) -> Asked:
    """A body of ``/v1/activations``; raises InvalidRequest, and TypeError for unknown options."""
    arrays, words = _Arrays(), check_names(names)
    specs = [capture] if isinstance(capture, (str, Mapping)) else list(capture)
    given = {
        "model": model,
        "prompts": _prompts(prompts),
        "capture": [capture_of(spec, words, arrays.put) for spec in specs],
        "interventions": [intervention_of(one, words, arrays.put) for one in interventions],
        "logits": None if logits is None else plain_fields(logits),
        "dtype": dtype,
        **checked(options),
    }
    return Asked(_without_none(given), arrays.tensors, words)


def patch_of(
    clean: Prompt,
    corrupted: Prompt,
    site: str,
    over: Sequence[str],
    metric: Sequence[Any] | Mapping[str, Any],
    model: str | None,
    names: str,
) -> Asked:
    """A body of ``/v1/patch``; ``metric`` is a name and its tokens. Raises InvalidRequest."""
    given = {
        "model": model,
        "clean": _prompt(clean),
        "corrupted": _prompt(corrupted),
        "site": ours(site, check_names(names)),
        "over": list(over),
        "metric": _metric(metric),
    }
    return Asked(_without_none(given))


def _metric(metric: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(metric, Mapping):
        return dict(metric)
    if isinstance(metric, str) or len(metric) < 2:
        raise InvalidRequest(
            "metric is a name and its tokens, as ('logit_diff', ' Paris', ' Rome')", param="metric"
        )
    name, *tokens = metric
    return {str(name): tokens if len(tokens) > 1 else tokens[0]}


def _prompts(prompts: Prompt | Sequence[Prompt]) -> list[Any]:
    """One prompt alone is a list of one."""
    if isinstance(prompts, str):
        return [prompts]
    listed = list(prompts)
    if listed and all(_is_id(one) for one in listed):
        return [plain(listed)]
    return [_prompt(one) for one in listed]


def _is_id(value: Any) -> bool:
    return hasattr(value, "__index__") and not getattr(value, "ndim", 0)


def _prompt(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else plain(list(prompt))


class _Arrays:
    """Those of a request, by names that it gives them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Array] = {}

    def put(self, array: Array) -> str:
        """Its name from now on."""
        name = f"tensor{len(self.tensors)}"
        self.tensors[name] = array
        return name


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
