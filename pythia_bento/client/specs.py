"""What callers write of captures and interventions, as JSON has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pythia_bento.protocol.site_names import OURS, Names, ours

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Spec = str | Mapping[str, Any]
"""A site, or the fields that docs/activations.md has; arrays may stand for names of tensors."""
Put = Callable[["Array"], Any]  # what stands for an array of fp32


def capture_of(spec: Spec, names: Names, put: Put) -> dict[str, Any]:
    """One of ``capture``."""
    fields = plain_fields({"site": spec} if isinstance(spec, str) else spec)
    _rename(fields, names)
    reduce = fields.get("reduce")
    if isinstance(reduce, Mapping) and _is_array(reduce.get("project")):
        fields["reduce"] = {**reduce, "project": put(_floats(reduce["project"]))}
    return fields


def intervention_of(spec: Mapping[str, Any], names: Names, put: Put) -> dict[str, Any]:
    """One of ``interventions``."""
    fields = plain_fields(spec)
    _rename(fields, names)
    if _is_array(vector := fields.get("vector")):
        values = _floats(vector)
        # Heads of a position are one row.
        fields["vector"] = put(values.reshape(len(values), -1) if values.ndim == 3 else values)
    return fields


def inline(interventions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of a request that takes no tensors: arrays as lists of their numbers."""
    return [intervention_of(one, OURS, _listed) for one in interventions]


def inline_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Of a sweep, which takes no tensors either."""
    fields = dict(task)
    if (capture := fields.get("capture")) is not None:
        specs = [capture] if isinstance(capture, (str, Mapping)) else capture
        fields["capture"] = [capture_of(spec, OURS, _listed) for spec in specs]
    if (interventions := fields.get("interventions")) is not None:
        fields["interventions"] = inline(interventions)
    return fields


def plain_fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Without None, and with plain numbers where positions, heads and the like have others."""
    return {
        name: value if name in ("vector", "reduce") else plain(value)
        for name, value in spec.items()
        if value is not None
    }


def plain(value: Any) -> Any:
    """As JSON has it: ranges and arrays as lists, numbers of numpy's as Python's."""
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, Iterable) else value


def _rename(fields: dict[str, Any], names: Names) -> None:
    if isinstance(fields.get("site"), str):
        fields["site"] = ours(fields["site"], names)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def _floats(value: Any) -> Array:
    """Of numpy, torch, or whatever else has ``__array__``."""
    import numpy as np

    value = value.detach().float().cpu() if hasattr(value, "detach") else value
    return np.ascontiguousarray(value, dtype=np.float32)


def _listed(array: Array) -> Any:
    return array.tolist()
