"""What the text of an answer has to be, and the library that compiles it: llguidance.

It is the extra ``guided``. Whoever imports this imports neither it nor anything else that is slow.
All limits count work and never time, so whether one is met depends on the tokens alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pythia_bento.errors import InvalidRequest, printable

MOST_CHARS = 2**16  # of a constraint's text
MOST_CHOICES = 1024
_LONGEST_REASON = 200  # characters of the library's words
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,  # of making the automata of all strings: 20 ms
    "max_grammar_size": 200_000,  # symbols
    "step_lexer_fuel": 50_000,  # of a token: 4 ms
    "step_max_items": 10_000,  # of a token's parse: 5 ms
    "max_items_in_row": 2_000,
    "max_lexer_states": 8_192,  # 1 KB each, of one sequence
    "precompute_large_lexemes": False,  # it would take as long as the vocabulary is large
    "verbose_errors": False,
}

Kind = Literal["choice", "regex", "json", "grammar"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a text must be, as a client wrote it."""

    field: str  # of the request, named by errors
    kind: Kind
    text: str
    """A regular expression, a grammar (Lark's, or GBNF), a JSON schema, or a JSON list of texts."""

    def refused(self, reason: str) -> InvalidRequest:
        """What tells a client why it cannot be had, by the first line of the library's words."""
        first = " ".join(reason.split("\n", 1)[0].split())
        return InvalidRequest(
            f"{self.field} cannot be followed: {printable(first, _LONGEST_REASON)}",
            param=self.field,
        )


class Vocabulary(NamedTuple):
    """What the library has to know of a tokenizer."""

    tokens: Sequence[bytes]
    special_ids: Sequence[int]
    eos_id: int
    encode: Callable[[str], list[int]]


BYTES = Vocabulary(
    [*(bytes([byte]) for byte in range(256)), b"<end>"], [256], 256, lambda text: [*text.encode()]
)
"""A token a byte: enough to try whether something can be compiled."""


class _Names:
    """A vocabulary by the names that the library asks for."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.eos_id
        self.tokens = vocabulary.tokens
        self.special_token_ids = vocabulary.special_ids
        self._encode = vocabulary.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def library() -> Any:
    """llguidance; raises ImportError without the extra."""
    import llguidance

    return llguidance


def check_library(field: str) -> None:
    """Raise InvalidRequest, naming ``field``, where the extra is not installed."""
    try:
        library()
    except ImportError:
        raise InvalidRequest(
            f"{field} needs the extra `guided`, which this server does not have "
            "(pip install 'pythia-bento[guided]')",
            param=field,
        ) from None


def make_tokenizer(vocabulary: Vocabulary) -> Any:
    """The library's; for 50,000 tokens it takes a third of a second."""
    llguidance = library()
    wrapper = llguidance.TokenizerWrapper(_Names(vocabulary))
    return llguidance.LLTokenizer(wrapper, n_vocab=len(vocabulary.tokens))


def compiled(constraint: Constraint, tokenizer: Any) -> Any:
    """A matcher that has seen nothing yet; raises InvalidRequest with the library's reason.

    Others have the interpreter meanwhile. It may take any time and memory: see
    ``runtime.grammar_trials``.
    """
    llguidance = library()
    try:
        source = _source(constraint, llguidance)
    except (ValueError, RecursionError) as error:
        raise constraint.refused(str(error)) from None
    limits = llguidance.LLParserLimits(**_LIMITS)
    matcher = llguidance.LLMatcher(tokenizer, source, log_level=0, limits=limits)
    if matcher.is_error():
        raise constraint.refused(matcher.get_error())
    return matcher


def _source(constraint: Constraint, llguidance: Any) -> str:
    """As the library reads grammars."""
    make, text = llguidance.LLMatcher, constraint.text
    if constraint.kind == "json":
        # Without spaces and newlines, of which a model may want any number.
        return str(make.grammar_from_json_schema(text, overrides={"whitespace_flexible": False}))
    if constraint.kind == "regex":
        return str(make.grammar_from_regex(text))
    if constraint.kind == "choice":
        options = " | ".join(json.dumps(option, ensure_ascii=False) for option in json.loads(text))
        return str(make.grammar_from_lark(f"start: {options}"))
    return str(llguidance.grammar_from("grammar", text))
