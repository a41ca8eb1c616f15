"""What is to be said about the fields of requests: meaning, and limits as JSON Schema.

The limits are the engine's (``engine.params``); a test sends the outermost values of each.
"""

from __future__ import annotations

from typing import Any

from pythia_bento.checkpoints.steps import MAX_STEP, MAX_STEPS
from pythia_bento.engine.params import INTEGERS, NUMBERS
from pythia_bento.engine.validate import Limits
from pythia_bento.protocol.bodies import MAX_PROMPTS, NEUTRAL
from pythia_bento.protocol.inside import MAX_PROMPTS as MAX_ACTIVATIONS
from pythia_bento.protocol.interventions import MAX_LOGIT_TOKENS
from pythia_bento.protocol.structured import ALIASES
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.sweep.spec import MAX_EXTRACT, MAX_ID_CHARS, MAX_ITEMS

Schema = dict[str, Any]

MEANINGS: dict[str, str] = {
    "prompt": "Text or token ids.",
    "model": "Any id of the shelf, which /v1/models lists; left out it is the default.",
    "pin": "Whether it stays on the device; left out that stays as it is.",
    "max_tokens": "Tokens to generate at most; with the prompt's they must fit into the context.",
    "min_tokens": "No end of text and no stop string before this many tokens.",
    "temperature": "0 is greedy; otherwise at least 0.000001.",
    "top_k": "Sample among this many tokens; 0 and -1 mean all.",
    "top_p": "Sample among the most likely tokens that together have this probability.",
    "min_p": "Sample among tokens with at least this share of the best one's probability.",
    "presence_penalty": "Taken from the logit of every token that was generated before.",
    "frequency_penalty": "The same, as often as the token was generated.",
    "repetition_penalty": "Divides the logits of tokens in prompt and text; 1 is off.",
    "n": "Continuations of each prompt.",
    "best_of": "Continuations to make, of which the n best by mean log-probability answer.",
    "seed": "Equal seeds give equal answers; without one it is drawn, and the answer has it.",
    "logprobs": "Log-probabilities of the tokens, with this many alternatives each.",
    "prompt_logprobs": "The same of the prompt's tokens.",
    "stop": "End before the first of these strings.",
    "stop_token_ids": "End after any of these tokens.",
    "include_stop_str_in_output": "Whether the text has the stop string at its end.",
    "ignore_eos": "Go on after the token that ends a text.",
    "logit_bias": "Added to the logits, by token id.",
    "skip_special_tokens": "Whether to leave special tokens out of the text.",
    "truncate_prompt_tokens": "Keep this many last tokens of a prompt; -1: all that fit.",
    "priority": "Lower goes first among the waiting requests of one API key.",
    "structured_outputs": "What the text must be; the server needs the extra `guided` for it.",
    "echo": "Whether the text begins with the prompt.",
    "stream": "Whether to answer with server-sent events.",
    "stream_options": "Only where stream is true.",
    "include_usage": "Whether the last event has token counts.",
    "continuous_usage_stats": "Whether every event has them.",
    "include_obfuscation": "Whether filler hides how long each event's text is.",
    "user": "Not looked at.",
    "return_token_ids": "Whether to answer with token ids too.",
    "return_tokens_as_token_ids": "Whether logprobs names tokens `token_id:<id>`.",
    "add_special_tokens": "Either value gives the same: no token is added to a prompt.",
    "spaces_between_special_tokens": "Either value gives the same.",
    "continuation": "What to score after the prompt; without it all but the first token is scored.",
    "interventions": "What is changed inside the model, in order at each site.",
    "PromptIntervention.prompts": "Numbers of the prompts it holds for; left out all, or all behind"
    " `from`.",
    "from": "`set` to what another prompt, one before those it holds for, has at these positions.",
    "Source.prompt": "Its number.",
    "op": "add: x + scale v; set: v; scale: scale x; zero: 0; project_out: x - scale (x.d) d; clamp"
    ": x.d is kept between low and high; d is v of length 1.",
    "vector": "v: numbers, or the name of a tensor, perhaps with a row for each position.",
    "scale": "Of add, scale and project_out.",
    "low": "Of clamp.",
    "high": "Of clamp.",
    "logits": "Logits to tell; n must be 1, and nothing streamed.",
    "LogitsOf.tokens": "Ids of the tokens.",
    "capture": "What is to be seen; two must not make a tensor of the same name.",
    "site": "As TransformerLens names it; * and {a..b} stand for layers.",
    "positions": "Of tokens; below 0 they count from the prompt's end.",
    "heads": "Of attn.hook_q, hook_k, hook_v, hook_z and hook_pattern; left out all.",
    "neurons": "Of mlp.hook_post; left out all.",
    "reduce": "What is told of a row instead: mean of all, norm, products, or tokens by the head.",
    "prompts": "Texts or token ids.",
    "dtype": "Of what is captured; what a reduction makes is float32.",
    "format": "json for up to 65,536 numbers.",
    "ActivationsRequest.max_tokens": "Tokens to generate at most; they are captured too.",
    "clean": "The prompt that values are taken from.",
    "corrupted": "The prompt that they are put into, with as many tokens.",
    "over": "What rows and columns of the answer are.",
    "metric": "Logit of a minus that of b, or log-probability of a, behind the last token.",
    "input": "Texts or token ids.",
    "encoding_format": "base64 is of float32, little-endian.",
    "dimensions": "The model's width, or left out.",
    "pooling": "The mean of all tokens' states, or the state of the last one.",
    "normalize": "Whether each vector is given the length 1.",
    "items": "The texts to score.",
    "id": "Of a text; its rows have it too.",
    "SweepRequest.model": "A name without a revision; left out it is the server's.",
    "steps": "all, log, a list, or from:to:by.",
    "models": "Ids, instead of model and steps.",
    "SweepRequest.items": "The texts; times checkpoints at most 1,000,000.",
    "task": "What to do with each text; left out it is scored.",
    "type": "Which task it is.",
    "ScoreTask.tokens": "Whether rows have each token's log-probability and rank.",
    "prompt_tokens": "Of a text's ids, to continue from.",
    "ExtractTask.tokens": "Of the ids behind them, to compare with.",
    "share": "Whether to generate, too, and tell the share of tokens that are in their places.",
    "tokens": "Token ids.",
    "return_token_strs": "Whether to answer with the tokens as the vocabulary spells them too.",
}


def limits_of_fields(runner: PythiaRunner) -> dict[str, Schema]:
    """JSON Schema that replaces pydantic's, by field; or by ``Model.field``, which wins."""
    limits = runner.limits
    ids = _array(_between(0, limits.num_tokens - 1), least=0)
    some_ids, text = ids | {"minItems": 1}, {"type": "string", "minLength": 1}
    one_prompt = [text, some_ids]
    many = [_array(kind, most=MAX_PROMPTS) for kind in one_prompt]
    return {
        "model": _model(runner),
        "CompletionRequest.prompt": {"anyOf": [*one_prompt, *many]},
        "EmbeddingsRequest.input": {"anyOf": [*one_prompt, *many]},
        "EmbeddingsRequest.dimensions": {
            "const": limits.config.hidden_size if limits.config else 0
        },
        "GenerateRequest.prompt": {"anyOf": one_prompt},
        "GenerateStreamRequest.prompt": {"anyOf": one_prompt},
        "ScoreItem.prompt": {"anyOf": one_prompt},
        "ScoreItem.continuation": {"anyOf": one_prompt},
        "ScoreItem.logprobs": _between(*limits.integer_range("logprobs")),
        "tokens": ids,
        **_inside(one_prompt, ids),
        **_sweep(one_prompt, limits),
        **_numbers(limits),
        **_stops(limits),
    }


def _inside(one_prompt: list[Schema], ids: Schema) -> dict[str, Schema]:
    return {
        "ActivationsRequest.prompts": _array({"anyOf": one_prompt}, most=MAX_ACTIVATIONS),
        **{f"ActivationsRequest.{field}": {"const": 1} for field in ("n", "best_of")},
        "LogitsOf.tokens": ids | {"minItems": 1, "maxItems": MAX_LOGIT_TOKENS},
        "PatchRequest.clean": {"anyOf": one_prompt},
        "PatchRequest.corrupted": {"anyOf": one_prompt},
    }


def _sweep(one_prompt: list[Schema], limits: Limits) -> dict[str, Schema]:
    name: Schema = {"type": "string"}
    step = _between(0, MAX_STEP)
    return {
        "Item.id": name | {"maxLength": MAX_ID_CHARS},
        "Item.prompt": {"anyOf": one_prompt},
        "Item.continuation": {"anyOf": one_prompt},
        "SweepRequest.items": _array({"$ref": "#/components/schemas/Item"}, most=MAX_ITEMS),
        "SweepRequest.model": name,
        "SweepRequest.steps": {"anyOf": [name, _array(step, most=MAX_STEPS)]},
        "SweepRequest.models": _array(name, most=MAX_STEPS),
        "ScoreTask.tokens": {"type": "boolean"},
        "ExtractTask.tokens": _between(1, MAX_EXTRACT),
        # A row has one continuation, and the request the priority.
        "GenerateTask.n": {"const": 1},
        **{
            f"{task}.{field}": {"type": "null"}
            for task in ("GenerateTask", "ActivationsTask")
            for field in ("priority", "prompt_logprobs")
        },
        "ActivationsTask.n": {"const": 1},
        "ActivationsTask.best_of": {"enum": [1, None]},
    }


def _model(runner: PythiaRunner) -> Schema:
    """Where there may be many, more may come while the server runs."""
    known = {} if runner.models.are_many else {"enum": [runner.info.id, *runner.info.aliases]}
    return {"type": "string", **known}


def unsupported_fields() -> dict[str, Schema]:
    """Fields of OpenAI's and vLLM's whose neutral value alone is accepted."""
    note = "Not supported: only this value is accepted."
    return {
        name: {"enum": [value, None] if value is not None else [None], "description": note}
        for name, value in NEUTRAL.items()
    }


def alias_fields() -> dict[str, Schema]:
    """Other names of ``structured_outputs``, of which one may be given."""
    note = "The same as `structured_outputs` in other words."
    return {name: {**schema, "description": note} for name, schema in ALIASES.items()}


def _numbers(limits: Limits) -> dict[str, Schema]:
    context = limits.max_positions
    kept = {"type": "integer", "anyOf": [{"const": -1}, {"minimum": 1, "maximum": context}]}
    return {
        **{field: _between(*limits.integer_range(field)) for field in INTEGERS},
        **{field: _between(*NUMBERS[field], "number") for field in NUMBERS},
        "max_tokens": _between(0, context - 1),  # a prompt has one token or more
        "min_tokens": _between(0, context - 1),
        "temperature": _between(0, NUMBERS["temperature"][1], "number"),  # 0 is greedy
        "top_k": _between(-1, limits.integer_range("top_k")[1]),  # -1 means 0
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": NUMBERS["top_p"][1]},
        "truncate_prompt_tokens": kept,
    }


def _stops(limits: Limits) -> dict[str, Schema]:
    ids = _between(0, limits.num_tokens - 1)
    string = {"type": "string", "minLength": 1, "maxLength": limits.max_stop_chars}
    return {
        "stop": {"anyOf": [string, _array(string, least=0, most=limits.max_stop)]},
        "stop_token_ids": _array(ids, least=0, most=limits.max_stop_token_ids),
        "logit_bias": {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]+$"},
            "additionalProperties": _between(*NUMBERS["logit_bias"], "number"),
            "maxProperties": limits.max_logit_bias,
        },
    }


def _between(low: float, high: float, kind: str = "integer") -> Schema:
    return {"type": kind, "minimum": low, "maximum": high}


def _array(items: Schema, least: int = 1, most: int | None = None) -> Schema:
    array: Schema = {"type": "array", "items": items}
    if least:
        array["minItems"] = least
    return array if most is None else array | {"maxItems": most}
