"""What generating takes beside tokens: how the next is chosen, where it ends, and text."""

from __future__ import annotations

from pythia_bento.engine.detokenizer import Detokenizer
from pythia_bento.engine.guides import Grammar, Guide
from pythia_bento.engine.params import Request
from pythia_bento.engine.penalties import TokenCounts
from pythia_bento.engine.tokenizer import Tokenizer


class Generation:
    """Of one sequence. One that only scores has none, as making it takes as long as all else."""

    __slots__ = (
        "_detokenizer",
        "_grammar",
        "_guide",
        "_params",
        "_tokenizer",
        "bias",
        "biases",
        "counts",
        "early_bias",
        "has_options",
        "stops",
    )

    def __init__(self, request: Request, tokenizer: Tokenizer, grammar: Grammar | None) -> None:
        """``grammar`` is that of the request's constraint."""
        self._params = params = request.params
        self._tokenizer, self._grammar = tokenizer, grammar
        self._detokenizer: Detokenizer | None = None
        self._guide: Guide | None = None
        self.counts = TokenCounts(params, request.prompt) if params.has_penalties else None
        self.stops: dict[int, int | None] = {id: id for id in params.stop_token_ids}
        # A text of some form ends where that is complete.
        if not params.ignore_eos or grammar is not None:
            self.stops[tokenizer.eos_id] = None
        self.bias = params.logit_bias
        banned = dict(params.logit_bias) | dict.fromkeys(self.stops, float("-inf"))
        self.early_bias = tuple(banned.items())
        self.biases = self._biases()
        is_filtered = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        # Whether any of its tokens takes more than temperature and seed.
        self.has_options = (
            is_filtered or bool(self.biases) or params.has_penalties or self.is_guided
        )

    def _biases(self) -> tuple[tuple[int, float, float], ...]:
        """(token, addend before ``min_tokens``, addend from there on), each token once."""
        late = dict(self.bias)
        has_early = self._params.min_tokens > 0 and not self.is_guided
        early = dict(self.early_bias) if has_early else late
        return tuple((token, value, late.get(token, 0.0)) for token, value in early.items())

    @property
    def is_guided(self) -> bool:
        """Whether each token decides, here, which ones may follow."""
        return self._grammar is not None

    @property
    def detokenizer(self) -> Detokenizer:
        """Made when it is first asked for: what waits takes no memory."""
        if self._detokenizer is None:
            self._detokenizer = Detokenizer(
                self._tokenizer,
                self._params.stop,
                skip_special_tokens=self._params.skip_special_tokens,
                include_stop=self._params.include_stop_str_in_output,
            )
        return self._detokenizer

    @property
    def guide(self) -> Guide | None:
        """Made when it is first asked for, too."""
        if self._guide is None and self._grammar is not None:
            self._guide = self._grammar.guide()
        return self._guide
