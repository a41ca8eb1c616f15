"""One event of each kind, and of each kind of row."""

from __future__ import annotations

from pythia_bento.protocol.sweep import Checkpoint, Done, End, Event, Row, Seconds, Start

EVENTS: list[Event] = [
    Start("key", 3, 2),
    Checkpoint(0, "toy@step1", 1, 2_097_152, "c" * 40, "w1", "print", ("toy@step2",)),
    Checkpoint(1, "toy", None, None, None, "w2", "print", computed=False),
    Row(checkpoint=1, item=0),
    Row(checkpoint=1, item=1, id="", logprob=0.0, num_tokens=0, greedy_tokens=0, is_greedy=True),
    Row(checkpoint=1, item=2, token_ids=(), logprobs=(), ranks=()),
    Row(checkpoint=1, item=3, token_ids=(5, 6), logprobs=(-0.5, -2.0), ranks=(1, 9)),
    Row(checkpoint=2, item=0, id="b", text="", finish_reason="length", token_ids=(7,)),
    Row(checkpoint=2, item=1, matched=0, extractable=False, share=0.25),
    Done(2, Seconds(0.5, 0.25, 1.0)),
    End(1, 2),
]
