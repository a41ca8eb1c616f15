"""What is open to all, without an API key: probes, metrics and pages."""

from __future__ import annotations

from pythia_bento import errors
from pythia_bento.server.openapi import answers
from pythia_bento.server.openapi.failures import UNAVAILABLE
from pythia_bento.server.openapi.operation import Content, Errors, Operation

ANY: Errors = (errors.PythiaError,)


def _get(
    path: str,
    id: str,
    summary: str,
    *content: Content,
    tag: str = "Pages",
    failures: Errors = ANY,
    is_documented: bool = True,
) -> Operation:
    return Operation(
        tag=tag,
        method="get",
        path=path,
        id=id,
        summary=summary,
        answers=content,
        errors=failures,
        needs_key=False,
        is_documented=is_documented,
    )


def _probe(path: str, id: str, summary: str) -> Operation:
    return _get(path, id, summary, "text/plain", tag="Operation", failures=UNAVAILABLE)


OPEN_OPERATIONS: tuple[Operation, ...] = (
    _probe("/livez", "livez", "Whether the process lives."),
    _probe("/healthz", "healthz", "The same as /livez."),
    _probe("/readyz", "readyz", "Whether the model answers."),
    _probe("/health", "health", "The same as /readyz, with an empty answer, as vLLM has it."),
    _probe("/ping", "ping", "The same as /health."),
    _probe("/metrics", "metrics", "Prometheus metrics."),
    _get("/version", "version", "The version of pythia-bento.", answers.Version, tag="Operation"),
    _get("/docs.json", "describe", "This description.", answers.AnyObject, failures=UNAVAILABLE),
    _get(
        "/openapi.json",
        "openapi",
        "The same, where others have it.",
        answers.AnyObject,
        failures=UNAVAILABLE,
        is_documented=False,
    ),
    _get(
        "/schema.json",
        "schema",
        "BentoML's description of /generate, /generate_stream and /score, for its client.",
        answers.AnyObject,
    ),
    _get("/playground", "playground", "A page to try the model with.", "text/html"),
    _get("/steps", "steps", "A page with a slider over the steps of training.", "text/html"),
    _get("/", "home", "A page with the model, its commit, and links.", "text/html"),
    _get("/docs", "docs", "This description as a page.", "text/html"),
    _get("/favicon.ico", "icon", "For browsers' tabs.", "image/svg+xml", is_documented=False),
    _get(
        "/playground/{name}",
        "playgroundFile",
        "A style or script of the playground.",
        "text/css",
        "text/javascript",
        is_documented=False,
    ),
    _get(
        "/static_content/{name}",
        "staticContent",
        "A style or script of Swagger UI, which BentoML brings.",
        "text/css",
        "text/javascript",
        is_documented=False,
    ),
)
