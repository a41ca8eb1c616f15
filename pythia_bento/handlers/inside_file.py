"""An answer of activations in one piece of memory, for who reads it in this process."""

from __future__ import annotations

from pythia_bento.handlers.inside_answer import Answer


async def file_of(answer: Answer) -> bytearray:
    """Its bytes, a safetensors file; the answer is closed, whatever happens."""
    try:
        memory, place = bytearray(answer.nbytes), 0
        async for piece in answer.pieces():
            memory[place : place + len(piece)] = piece
            place += len(piece)
        return memory
    finally:
        answer.close()
