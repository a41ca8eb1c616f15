"""One OpenTelemetry span a request, for BentoML's middleware around everything."""

from __future__ import annotations

from typing import Any

from opentelemetry.instrumentation import asgi


class RequestSpans(asgi.OpenTelemetryMiddleware):
    """Without the spans of single messages.

    Those cost about as much as the rest of sending an event of a stream, even where no trace is
    collected, and fill traces with one entry an event. BentoML has no setting for them.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **{"exclude_spans": ["receive", "send"], **options})


def install() -> None:
    """For applications that BentoML makes from now on in this process."""
    asgi.OpenTelemetryMiddleware = RequestSpans  # type: ignore[assignment,misc]
