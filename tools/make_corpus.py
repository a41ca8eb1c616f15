"""Generate the training text of the bundled checkpoint: simple English from a small grammar.

Every document is a function of (seed, split, index) alone, so the corpus can be streamed, read
from any place, and made again to the byte. Nothing is downloaded and no text is copied.

    python tools/make_corpus.py --megabytes 24 --output corpus.txt
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus_grammar import counting, facts, story


def document(seed: int, split: str, index: int) -> str:
    """Document ``index`` of ``split`` (``train`` or ``held-out``), always the same text."""
    rng = random.Random(f"{seed}/{split}/{index}")
    return rng.choices((story, counting, facts), weights=(8, 1, 2))[0](rng)


def documents(seed: int, split: str, size: int) -> Iterator[str]:
    """Documents from index 0 until they hold ``size`` bytes or more."""
    for index in itertools.count():
        if size <= 0:
            return
        text = document(seed, split, index)
        size -= len(text.encode())
        yield text


def as_one_text(texts: Iterable[str]) -> str:
    """Documents with an empty line between them: what the corpus' sha256 is taken over."""
    return "\n\n".join(texts) + "\n"


def joined(seed: int, split: str, megabytes: float) -> str:
    """The first ``megabytes`` of ``split`` as one text."""
    return as_one_text(documents(seed, split, int(megabytes * 1e6)))


def words(text: str) -> list[str]:
    """The lower-case words of ``text``, in order."""
    return re.findall(r"[a-z]+", text.lower())


def word_list(seed: int = 0, count: int = 3000) -> frozenset[str]:
    """Every word in the first ``count`` training documents; the grammar has hardly any more."""
    return frozenset(w for index in range(count) for w in words(document(seed, "train", index)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megabytes", type=float, default=24.0)
    parser.add_argument("--split", choices=("train", "held-out"), default="train")
    parser.add_argument("--output", type=Path, help="default: standard output")
    args = parser.parse_args()
    text = joined(args.seed, args.split, args.megabytes)
    if args.output is None:
        sys.stdout.write(text)
    else:
        args.output.write_text(text, encoding="utf-8")
    print("sha256", hashlib.sha256(text.encode()).hexdigest(), file=sys.stderr)


if __name__ == "__main__":
    main()
