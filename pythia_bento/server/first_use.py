"""What libraries do at their first answer, done before anybody waits for one."""

from __future__ import annotations

from starlette.responses import FileResponse
from starlette.types import Message


async def answer_nobody() -> None:
    """Answer with a file, to nobody: anyio imports what it needs for threads, groups and files."""
    scope = {"type": "http", "method": "GET", "headers": []}
    await FileResponse(__file__)(scope, _nothing, _ignore)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _ignore(_: Message) -> None:
    pass
