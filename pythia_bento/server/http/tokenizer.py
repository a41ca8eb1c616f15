"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info`` at the server's root, as vLLM has them.

lm-evaluation-harness looks for them there (``tokenizer_backend=auto``), and then needs no
tokenizer of its own.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pythia_bento.protocol.bodies import DetokenizeRequest, TokenizeRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.served import loaded
from pythia_bento.server.http.app import make_app
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.errors import OrjsonResponse
from pythia_bento.server.http.json_answer import json_in_pieces

TOKENS_AT_ONCE = 1024  # of an answer


def create_app() -> Starlette:
    """To be mounted at the root; see ``make_app``."""
    return make_app(
        [
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/detokenize", detokenize, methods=["POST"]),
            Route("/tokenizer_info", tokenizer_info, methods=["GET"]),
        ]
    )


async def tokenize(request: HttpRequest) -> Response:
    """POST ``/tokenize``."""
    runner = loaded(request.app.state.runner)
    body = parse(TokenizeRequest, await read_json(request, runner.limits))
    served = await runner.served(body.model)
    ids = await served.encode(body.prompt)
    names = map(served.tokenizer.token_name, ids) if body.return_token_strs else None
    head = {"count": len(ids), "max_model_len": served.limits.max_positions}
    return await json_in_pieces(head, TOKENS_AT_ONCE, tokens=ids, token_strs=names)


async def detokenize(request: HttpRequest) -> Response:
    """POST ``/detokenize``; special tokens are shown, bytes that are no UTF-8 become U+FFFD."""
    runner = loaded(request.app.state.runner)
    body = parse(DetokenizeRequest, await read_json(request, runner.limits))
    served = await runner.served(body.model)
    return OrjsonResponse({"prompt": await served.decode(body.tokens, "tokens")})


async def tokenizer_info(request: HttpRequest) -> Response:
    """GET ``/tokenizer_info``: keys as in ``tokenizer_config.json``. There is no chat template."""
    runner = loaded(request.app.state.runner)
    end = runner.tokenizer.token_text(runner.tokenizer.eos_id)
    return OrjsonResponse(
        {
            "tokenizer_class": "GPTNeoXTokenizer",
            "bos_token": end,  # one token is both in the whole suite
            "eos_token": end,
            "unk_token": end,
            "pad_token": None,
            "add_bos_token": False,
            "add_eos_token": False,
            "chat_template": None,
            "model_max_length": runner.limits.max_positions,
            "vocab_size": runner.tokenizer.num_tokens,
        }
    )
