"""What is asked of the inside of forward passes, in the words of every transport."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pythia_bento.client.options import checked
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.site_names import OURS, Names, check_names, ours
from pythia_bento.protocol.types import Prompt

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Spec = str | Mapping[str, Any]
"""A site, or the fields that docs/activations.md has; arrays may stand for names of tensors."""


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
        "capture": [_capture(spec, words, arrays) for spec in specs],
        "interventions": [_intervention(one, words, arrays.name) for one in interventions],
        "logits": None if logits is None else _plain_fields(logits),
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


def inline(interventions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Interventions of a request that takes no tensors: arrays as lists of their numbers."""
    return [_intervention(one, OURS, lambda array: array.tolist()) for one in interventions]


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
        return [_plain(listed)]
    return [_prompt(one) for one in listed]


def _is_id(value: Any) -> bool:
    return hasattr(value, "__index__") and not getattr(value, "ndim", 0)


def _prompt(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else _plain(list(prompt))


def _capture(spec: Spec, names: Names, arrays: _Arrays) -> dict[str, Any]:
    fields = _plain_fields({"site": spec} if isinstance(spec, str) else spec)
    _rename(fields, names)
    reduce = fields.get("reduce")
    if isinstance(reduce, Mapping) and _is_array(reduce.get("project")):
        fields["reduce"] = {**reduce, "project": arrays.name(_floats(reduce["project"]))}
    return fields


def _intervention(spec: Mapping[str, Any], names: Names, put: Any) -> dict[str, Any]:
    """``put`` is what stands for an array."""
    fields = _plain_fields(spec)
    _rename(fields, names)
    if _is_array(vector := fields.get("vector")):
        values = _floats(vector)
        # Heads of a position are one row.
        fields["vector"] = put(values.reshape(len(values), -1) if values.ndim == 3 else values)
    return fields


def _rename(fields: dict[str, Any], names: Names) -> None:
    if isinstance(fields.get("site"), str):
        fields["site"] = ours(fields["site"], names)


def _plain_fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Without None, and with plain numbers where positions, heads and the like have others."""
    return {
        name: value if name in ("vector", "reduce") else _plain(value)
        for name, value in spec.items()
        if value is not None
    }


def _plain(value: Any) -> Any:
    """As JSON has it: ranges and arrays as lists, numbers of numpy's as Python's."""
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, Iterable) else value


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def _floats(value: Any) -> Array:
    """Of numpy, torch, or whatever else has ``__array__``."""
    import numpy as np

    value = value.detach().float().cpu() if hasattr(value, "detach") else value
    return np.ascontiguousarray(value, dtype=np.float32)


class _Arrays:
    """Those of a request, by names that it gives them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Array] = {}

    def name(self, array: Array) -> str:
        """Of an array from now on."""
        name = f"tensor{len(self.tensors)}"
        self.tensors[name] = array
        return name


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
