"""Keys and values are read again only under the weights that computed them."""

from __future__ import annotations

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.sequence import Sequence
from tests.unit.engine.toy import TOKENIZER, ToyExecutor, ToyModel, request

BLOCK = 4
PROMPT = tuple(range(2, 15))


def computed(scheduler: Scheduler, order: int, root: bytes) -> tuple[int, list[int]]:
    """How much of a prompt was found in the cache, and the blocks that it was computed in."""
    asked = request(str(order), PROMPT, max_tokens=1)
    sequence = Sequence(asked, 0, order, TOKENIZER, BLOCK, root)
    scheduler.add(sequence)
    for chunk in scheduler.schedule():
        scheduler.advance(chunk.sequence, chunk.count)
    blocks = list(sequence.blocks)
    scheduler.remove(sequence)
    return sequence.num_cached_tokens, blocks


def test_the_same_tokens_under_other_weights_share_no_block() -> None:
    one = Sequence(request(prompt=PROMPT), 0, 0, TOKENIZER, BLOCK, b"one")
    two = Sequence(request(prompt=PROMPT), 0, 1, TOKENIZER, BLOCK, b"two")
    assert not set(one.block_names(3)) & set(two.block_names(3))
    scheduler = Scheduler(BlockPool(16), BLOCK, 8, 64)
    found, blocks = computed(scheduler, 0, b"one")
    assert found == 0
    found, others = computed(scheduler, 1, b"two")
    assert found == 0 and not set(others[:3]) & set(blocks[:3])
    found, again = computed(scheduler, 2, b"one")
    assert found == 12 and again[:3] == blocks[:3]
    found, again = computed(scheduler, 3, b"two")
    assert found == 12 and again[:3] == others[:3]


def test_sequences_have_the_root_of_their_engine() -> None:
    roots: list[bytes] = []
    executor = ToyExecutor(
        ToyModel(BLOCK),
        EngineConfig(64),
        lambda chunks: roots.extend(chunk.sequence.root for chunk in chunks),
    )
    engine = Engine(executor, TOKENIZER, root=b"weights")
    engine.generate([request(n=2, max_tokens=2)])
    assert set(roots) == {b"weights"}
