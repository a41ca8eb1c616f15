"""What shows the inside of a model, and changes it."""

from __future__ import annotations

from pythia_bento import errors
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.patching import PatchRequest
from pythia_bento.server.openapi import inside_answers
from pythia_bento.server.openapi.failures import BODY, ENGINE, MODEL, UNAVAILABLE
from pythia_bento.server.openapi.operation import Operation

INSIDE_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        tag="Inside",
        method="post",
        path="/v1/activations",
        id="activations",
        summary="What the model computes of some prompts, perhaps changed; docs/activations.md.",
        answers=("application/vnd.safetensors", inside_answers.Activations),
        errors=(*BODY, *ENGINE, errors.CaptureOverflow, *MODEL, *UNAVAILABLE),
        body=ActivationsRequest,
        takes_tensors=True,
        generates=True,
        examples={
            "The residual stream behind each layer": {
                "prompts": ["Once upon a time"],
                "capture": [{"site": "blocks.*.hook_resid_post"}],
            },
            "Attention of two heads, as numbers": {
                "prompts": ["Once upon a time"],
                "capture": [{"site": "blocks.0.attn.hook_pattern", "heads": [0, 1]}],
                "format": "json",
            },
            "What each layer would say next": {
                "prompts": ["Once upon a", [5, 6, 7]],
                "capture": [
                    {
                        "site": "blocks.*.hook_resid_post",
                        "positions": "last",
                        "reduce": {"lens": {"top": 3}},
                    }
                ],
                "format": "json",
            },
            "A head switched off, a residual taken from another prompt": {
                "prompts": ["Once upon a time", "One day a time"],
                "interventions": [
                    {"site": "blocks.0.attn.hook_z", "op": "zero", "heads": [1]},
                    {
                        **{"site": "blocks.1.hook_resid_pre", "op": "set", "positions": "last"},
                        **{"from": {"prompt": 0}, "prompts": [1]},
                    },
                ],
                "logits": {"tokens": [5, 6], "positions": "last"},
                "max_tokens": 4,
                "temperature": 0,
            },
        },
    ),
    Operation(
        tag="Inside",
        method="post",
        path="/v1/patch",
        id="patch",
        summary="One prompt patched into another place by place, and what each patch does.",
        answers=(inside_answers.Patched,),
        errors=(*BODY, *ENGINE, *MODEL, *UNAVAILABLE),
        body=PatchRequest,
        generates=True,
        examples={
            "Residual streams": {
                "clean": [5, 6, 7],
                "corrupted": [5, 8, 7],
                "site": "blocks.*.hook_resid_pre",
                "metric": {"logit_diff": [9, 10]},
            },
            "Heads": {
                "clean": [5, 6, 7],
                "corrupted": [5, 8, 7],
                "site": "blocks.*.attn.hook_z",
                "over": ["layer", "head"],
                "metric": {"logprob": 9},
            },
        },
    ),
)
