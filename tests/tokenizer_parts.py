"""A small byte-level tokenizer in the mould of Pythia's, built without training."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from pythia_bento.engine.tokenizer import END_OF_TEXT, Tokenizer

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a"), ("Ã", "©"), ("l", "l")]


def raw_tokenizer() -> tokenizers.Tokenizer:
    """Two special tokens, 256 bytes, a few merges, runs of spaces: 268 tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [END_OF_TEXT, "<|padding|>", *alphabet, *(a + b for a, b in MERGES)]
    vocab = {token: id for id, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(t, special=True) for t in tokens[:2]])
    inner.add_tokens([AddedToken(" " * count, normalized=True) for count in (4, 3, 2)])
    return inner


def small_tokenizer() -> Tokenizer:
    """The same behind the engine's interface."""
    return Tokenizer(raw_tokenizer())
