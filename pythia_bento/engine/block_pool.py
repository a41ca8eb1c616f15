"""KV blocks: who holds them, and which ones hold a prefix that another sequence may read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import sha256

ROOT_HASH = b""
"""Parent of first blocks where one set of weights is all that ever computes the pool's blocks."""


def hash_block(parent: bytes, token_ids: bytes) -> bytes:
    """Name of a full block: SHA-256 over its parent's name and its tokens (int32)."""
    return sha256(parent + token_ids).digest()


def hash_blocks(parent: bytes, token_ids: bytes, size: int) -> list[bytes]:
    """Names of the full blocks behind ``parent``, ``size`` bytes of tokens each."""
    names = []
    for start in range(0, len(token_ids), size):
        parent = sha256(parent + token_ids[start : start + size]).digest()
        names.append(parent)
    return names


class BlockPool:
    """Reference-counted blocks.

    A published block stays readable after its last holder left, until its memory is needed: blank
    blocks are given out first, then cached ones, least recently used first.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._name_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._blank = list(range(num_blocks - 1, -1, -1))  # free, nothing to keep
        self._idle: OrderedDict[int, None] = OrderedDict()  # free, cached, oldest first
        self._claims: dict[object, int] = {}  # who waits for how many free blocks, longest first

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, cached ones included."""
        return len(self._blank) + len(self._idle)

    @property
    def num_cached(self) -> int:
        """Blocks that a later sequence could read instead of computing."""
        return len(self._block_of)

    def allocate(self, count: int) -> list[int]:
        """``count`` blocks with one reference each; the caller made sure that they are free."""
        if count > self.num_free:
            raise RuntimeError(f"{count} blocks asked, {self.num_free} free")
        blocks = [self._blank.pop() if self._blank else self._evict() for _ in range(count)]
        for block in blocks:
            self._refs[block] = 1
        return blocks

    def deallocate(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each; the last of a chain is the first to be evicted later."""
        refs = self._refs
        for block in reversed(blocks):
            if refs[block] == 0:
                raise RuntimeError(f"block {block} is free already")
            refs[block] -= 1
            if refs[block] == 0:
                self._set_free(block)

    def lookup(self, names: Iterable[bytes]) -> list[int]:
        """The cached blocks of the longest known beginning of a chain; takes no reference."""
        blocks = []
        for name in names:
            if (block := self._block_of.get(name)) is None:
                break
            blocks.append(block)
        return blocks

    def share(self, blocks: Sequence[int]) -> None:
        """Take one reference to each of some cached blocks; undone by ``deallocate``."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._idle[block]
            self._refs[block] += 1

    def claim(self, owner: object, count: int) -> bool:
        """Whether ``count`` blocks are free for one of those who share the pool.

        Where they are not, what becomes free is kept for it, behind those who were refused before,
        until it calls ``unclaim``: who needs many would else wait for ever, as others take each
        block at once.
        """
        free = self.num_free
        for other, claimed in self._claims.items():
            if other is owner:
                break
            free -= claimed
        if count <= free:
            return True
        self._claims[owner] = count
        return False

    def unclaim(self, owner: object) -> None:
        """It waits for no more blocks; harmless where it does not."""
        self._claims.pop(owner, None)

    def num_idle(self, blocks: Iterable[int]) -> int:
        """How many of ``blocks`` nobody holds, so that sharing them uses up free blocks."""
        return sum(self._refs[block] == 0 for block in blocks)

    def publish(self, blocks: Sequence[int], names: Sequence[bytes]) -> None:
        """Let others read full, computed blocks. The first block of a name keeps it."""
        for block, name in zip(blocks, names, strict=True):
            if name not in self._block_of and block not in self._name_of:
                self._block_of[name] = block
                self._name_of[block] = name

    def forget(self, blocks: Iterable[int]) -> None:
        """Let nobody read these held blocks any more."""
        for block in blocks:
            if (name := self._name_of.pop(block, None)) is not None:
                del self._block_of[name]

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._name_of.pop(block)]
        return block

    def _set_free(self, block: int) -> None:
        if block in self._name_of:
            self._idle[block] = None
        else:
            self._blank.append(block)

    def check(self, held: Iterable[Sequence[int]] = ()) -> None:
        """Raise RuntimeError unless ``held`` are exactly the references and all books agree."""
        refs = [0] * self.num_blocks
        for blocks in held:
            for block in blocks:
                refs[block] += 1
        free = sorted([*self._blank, *self._idle])
        faults = {
            "references differ from the holders'": refs != self._refs,
            "free blocks are not those without a holder": free
            != [block for block, count in enumerate(refs) if count == 0],
            "names and blocks disagree": {b: n for n, b in self._block_of.items()} != self._name_of,
            "a blank block has a name": any(block in self._name_of for block in self._blank),
            "an idle block has no name": any(block not in self._name_of for block in self._idle),
        }
        if found := [fault for fault, is_so in faults.items() if is_so]:
            raise RuntimeError("; ".join(found))
