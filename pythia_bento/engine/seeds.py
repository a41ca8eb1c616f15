"""Seeds of the continuations of a request."""

from __future__ import annotations

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def sequence_seed(seed: int, index: int) -> int:
    """Seed of continuation ``index``: ``seed`` itself for 0, else output ``index`` of splitmix64.

    splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014):
    the state advances by the golden gamma and is mixed; all arithmetic modulo 2**64.
    """
    if index == 0:
        return seed & _MASK
    z = (seed + index * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
