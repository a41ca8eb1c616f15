from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: TokenIds
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Union[TokenIds, _Mapping]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("max_tokens", "min_tokens", "temperature", "top_k", "top_p", "min_p", "n", "seed", "logprobs", "stop", "stop_token_ids", "ignore_eos", "logit_bias", "presence_penalty", "frequency_penalty", "repetition_penalty", "best_of", "prompt_logprobs", "include_stop_str_in_output", "skip_special_tokens", "truncate_prompt_tokens", "priority", "structured_outputs")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    BEST_OF_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_STOP_STR_IN_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    SKIP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    min_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    n: int
    seed: int
    logprobs: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    ignore_eos: bool
    logit_bias: _containers.ScalarMap[int, float]
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    best_of: int
    prompt_logprobs: int
    include_stop_str_in_output: bool
    skip_special_tokens: bool
    truncate_prompt_tokens: int
    priority: int
    structured_outputs: StructuredOutputs
    def __init__(self, max_tokens: _Optional[int] = ..., min_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., n: _Optional[int] = ..., seed: _Optional[int] = ..., logprobs: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., ignore_eos: bool = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., best_of: _Optional[int] = ..., prompt_logprobs: _Optional[int] = ..., include_stop_str_in_output: bool = ..., skip_special_tokens: bool = ..., truncate_prompt_tokens: _Optional[int] = ..., priority: _Optional[int] = ..., structured_outputs: _Optional[_Union[StructuredOutputs, _Mapping]] = ...) -> None: ...

class StructuredOutputs(_message.Message):
    __slots__ = ("choice", "regex", "json", "grammar")
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    choice: _containers.RepeatedScalarFieldContainer[str]
    regex: str
    json: str
    grammar: str
    def __init__(self, choice: _Optional[_Iterable[str]] = ..., regex: _Optional[str] = ..., json: _Optional[str] = ..., grammar: _Optional[str] = ...) -> None: ...

class TopToken(_message.Message):
    __slots__ = ("id", "text", "logprob")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    logprob: float
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "text", "logprob", "top")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    logprob: float
    top: _containers.RepeatedCompositeFieldContainer[TopToken]
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ..., top: _Optional[_Iterable[_Union[TopToken, _Mapping]]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "sampling", "model", "interventions")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INTERVENTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: Prompt
    sampling: Sampling
    model: str
    interventions: _containers.RepeatedCompositeFieldContainer[Intervention]
    def __init__(self, prompt: _Optional[_Union[Prompt, _Mapping]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., model: _Optional[str] = ..., interventions: _Optional[_Iterable[_Union[Intervention, _Mapping]]] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("index", "text", "token_ids", "tokens", "finish_reason", "stop_string", "stop_token_id")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_STRING_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    finish_reason: FinishReason
    stop_string: str
    stop_token_id: int
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., stop_string: _Optional[str] = ..., stop_token_id: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue", "prefill", "decode", "total")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    queue: float
    prefill: float
    decode: float
    total: float
    def __init__(self, queue: _Optional[float] = ..., prefill: _Optional[float] = ..., decode: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Summary(_message.Message):
    __slots__ = ("model", "fingerprint", "num_prompt_tokens", "num_cached_tokens", "num_completion_tokens", "timings", "seed")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: str
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    timings: Timings
    seed: int
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., num_prompt_tokens: _Optional[int] = ..., num_cached_tokens: _Optional[int] = ..., num_completion_tokens: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("deltas", "summary", "prompt_tokens")
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    deltas: _containers.RepeatedCompositeFieldContainer[Delta]
    summary: Summary
    prompt_tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, deltas: _Optional[_Iterable[_Union[Delta, _Mapping]]] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ..., prompt_tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class ScoreItem(_message.Message):
    __slots__ = ("prompt", "continuation", "logprobs", "model")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    prompt: Prompt
    continuation: Prompt
    logprobs: int
    model: str
    def __init__(self, prompt: _Optional[_Union[Prompt, _Mapping]] = ..., continuation: _Optional[_Union[Prompt, _Mapping]] = ..., logprobs: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("items", "model")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoreItem]
    model: str
    def __init__(self, items: _Optional[_Iterable[_Union[ScoreItem, _Mapping]]] = ..., model: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "param")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    param: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("logprob", "num_tokens", "is_greedy", "tokens")
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IS_GREEDY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    num_tokens: int
    is_greedy: bool
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, logprob: _Optional[float] = ..., num_tokens: _Optional[int] = ..., is_greedy: bool = ..., tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class ScoreResult(_message.Message):
    __slots__ = ("score", "error")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    score: Score
    error: Error
    def __init__(self, score: _Optional[_Union[Score, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ScoreResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ScoreResult, _Mapping]]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("text", "model")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    text: str
    model: str
    def __init__(self, text: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class DetokenizeRequest(_message.Message):
    __slots__ = ("ids", "model")
    IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    model: str
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., model: _Optional[str] = ...) -> None: ...

class DetokenizeResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("context_tokens", "vocabulary", "cache_tokens", "max_n", "max_logprobs", "max_stop", "max_batch_size", "max_queue", "request_timeout", "max_body_bytes", "max_prompt_tokens", "max_sequences")
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    CACHE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_N_FIELD_NUMBER: _ClassVar[int]
    MAX_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    context_tokens: int
    vocabulary: int
    cache_tokens: int
    max_n: int
    max_logprobs: int
    max_stop: int
    max_batch_size: int
    max_queue: int
    request_timeout: float
    max_body_bytes: int
    max_prompt_tokens: int
    max_sequences: int
    def __init__(self, context_tokens: _Optional[int] = ..., vocabulary: _Optional[int] = ..., cache_tokens: _Optional[int] = ..., max_n: _Optional[int] = ..., max_logprobs: _Optional[int] = ..., max_stop: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., max_queue: _Optional[int] = ..., request_timeout: _Optional[float] = ..., max_body_bytes: _Optional[int] = ..., max_prompt_tokens: _Optional[int] = ..., max_sequences: _Optional[int] = ...) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("model", "aliases", "fingerprint", "version", "commit", "files", "weights_sha256", "quantization", "dtype", "matmul", "backend", "batch_invariant", "same_weights", "limits")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    MATMUL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    BATCH_INVARIANT_FIELD_NUMBER: _ClassVar[int]
    SAME_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    fingerprint: str
    version: str
    commit: str
    files: _containers.ScalarMap[str, str]
    weights_sha256: str
    quantization: str
    dtype: str
    matmul: str
    backend: str
    batch_invariant: bool
    same_weights: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    def __init__(self, model: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., fingerprint: _Optional[str] = ..., version: _Optional[str] = ..., commit: _Optional[str] = ..., files: _Optional[_Mapping[str, str]] = ..., weights_sha256: _Optional[str] = ..., quantization: _Optional[str] = ..., dtype: _Optional[str] = ..., matmul: _Optional[str] = ..., backend: _Optional[str] = ..., batch_invariant: bool = ..., same_weights: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class ModelsRequest(_message.Message):
    __slots__ = ("pattern",)
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    def __init__(self, pattern: _Optional[str] = ...) -> None: ...

class ModelState(_message.Message):
    __slots__ = ("model", "aliases", "step", "weights", "state", "pinned", "nbytes", "last_used", "fingerprint", "same_weights", "error")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ModelState.State]
        DISK: _ClassVar[ModelState.State]
        LOADING: _ClassVar[ModelState.State]
        HOST: _ClassVar[ModelState.State]
        DEVICE: _ClassVar[ModelState.State]
        FAILED: _ClassVar[ModelState.State]
    STATE_UNSPECIFIED: ModelState.State
    DISK: ModelState.State
    LOADING: ModelState.State
    HOST: ModelState.State
    DEVICE: ModelState.State
    FAILED: ModelState.State
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    NBYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SAME_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    model: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    step: int
    weights: str
    state: ModelState.State
    pinned: bool
    nbytes: int
    last_used: float
    fingerprint: str
    same_weights: _containers.RepeatedScalarFieldContainer[str]
    error: str
    def __init__(self, model: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., step: _Optional[int] = ..., weights: _Optional[str] = ..., state: _Optional[_Union[ModelState.State, str]] = ..., pinned: bool = ..., nbytes: _Optional[int] = ..., last_used: _Optional[float] = ..., fingerprint: _Optional[str] = ..., same_weights: _Optional[_Iterable[str]] = ..., error: _Optional[str] = ...) -> None: ...

class ModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelState]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelState, _Mapping]]] = ...) -> None: ...

class SweepRequest(_message.Message):
    __slots__ = ("model", "steps", "models", "items", "score", "generate", "extract", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    steps: str
    models: _containers.RepeatedScalarFieldContainer[str]
    items: _containers.RepeatedCompositeFieldContainer[SweepItem]
    score: ScoreTask
    generate: GenerateTask
    extract: ExtractTask
    priority: int
    def __init__(self, model: _Optional[str] = ..., steps: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., items: _Optional[_Iterable[_Union[SweepItem, _Mapping]]] = ..., score: _Optional[_Union[ScoreTask, _Mapping]] = ..., generate: _Optional[_Union[GenerateTask, _Mapping]] = ..., extract: _Optional[_Union[ExtractTask, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class SweepItem(_message.Message):
    __slots__ = ("prompt", "continuation", "id")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    prompt: Prompt
    continuation: Prompt
    id: str
    def __init__(self, prompt: _Optional[_Union[Prompt, _Mapping]] = ..., continuation: _Optional[_Union[Prompt, _Mapping]] = ..., id: _Optional[str] = ...) -> None: ...

class ScoreTask(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: bool
    def __init__(self, tokens: bool = ...) -> None: ...

class GenerateTask(_message.Message):
    __slots__ = ("sampling",)
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    sampling: Sampling
    def __init__(self, sampling: _Optional[_Union[Sampling, _Mapping]] = ...) -> None: ...

class ExtractTask(_message.Message):
    __slots__ = ("prompt_tokens", "tokens", "share")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    tokens: int
    share: bool
    def __init__(self, prompt_tokens: _Optional[int] = ..., tokens: _Optional[int] = ..., share: bool = ...) -> None: ...

class SweepEvent(_message.Message):
    __slots__ = ("start", "checkpoint", "rows", "done", "failed", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: SweepStart
    checkpoint: SweepCheckpoint
    rows: SweepRows
    done: SweepDone
    failed: SweepFailed
    end: SweepEnd
    def __init__(self, start: _Optional[_Union[SweepStart, _Mapping]] = ..., checkpoint: _Optional[_Union[SweepCheckpoint, _Mapping]] = ..., rows: _Optional[_Union[SweepRows, _Mapping]] = ..., done: _Optional[_Union[SweepDone, _Mapping]] = ..., failed: _Optional[_Union[SweepFailed, _Mapping]] = ..., end: _Optional[_Union[SweepEnd, _Mapping]] = ...) -> None: ...

class SweepStart(_message.Message):
    __slots__ = ("key", "checkpoints", "items")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    key: str
    checkpoints: int
    items: int
    def __init__(self, key: _Optional[str] = ..., checkpoints: _Optional[int] = ..., items: _Optional[int] = ...) -> None: ...

class SweepCheckpoint(_message.Message):
    __slots__ = ("index", "model", "step", "tokens_seen", "commit", "weights", "system_fingerprint", "same_weights", "computed")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SEEN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SAME_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_FIELD_NUMBER: _ClassVar[int]
    index: int
    model: str
    step: int
    tokens_seen: int
    commit: str
    weights: str
    system_fingerprint: str
    same_weights: _containers.RepeatedScalarFieldContainer[str]
    computed: bool
    def __init__(self, index: _Optional[int] = ..., model: _Optional[str] = ..., step: _Optional[int] = ..., tokens_seen: _Optional[int] = ..., commit: _Optional[str] = ..., weights: _Optional[str] = ..., system_fingerprint: _Optional[str] = ..., same_weights: _Optional[_Iterable[str]] = ..., computed: bool = ...) -> None: ...

class SweepRows(_message.Message):
    __slots__ = ("checkpoint", "rows")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    checkpoint: int
    rows: _containers.RepeatedCompositeFieldContainer[SweepRow]
    def __init__(self, checkpoint: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[SweepRow, _Mapping]]] = ...) -> None: ...

class SweepRow(_message.Message):
    __slots__ = ("item", "id", "logprob", "num_tokens", "greedy_tokens", "is_greedy", "tokens", "text", "finish_reason", "matched", "extractable", "share", "error")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GREEDY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IS_GREEDY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    EXTRACTABLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    item: int
    id: str
    logprob: float
    num_tokens: int
    greedy_tokens: int
    is_greedy: bool
    tokens: SweepTokens
    text: str
    finish_reason: FinishReason
    matched: int
    extractable: bool
    share: float
    error: Error
    def __init__(self, item: _Optional[int] = ..., id: _Optional[str] = ..., logprob: _Optional[float] = ..., num_tokens: _Optional[int] = ..., greedy_tokens: _Optional[int] = ..., is_greedy: bool = ..., tokens: _Optional[_Union[SweepTokens, _Mapping]] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., matched: _Optional[int] = ..., extractable: bool = ..., share: _Optional[float] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class SweepTokens(_message.Message):
    __slots__ = ("ids", "logprobs", "ranks")
    IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class SweepDone(_message.Message):
    __slots__ = ("checkpoint", "seconds")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    checkpoint: int
    seconds: SweepSeconds
    def __init__(self, checkpoint: _Optional[int] = ..., seconds: _Optional[_Union[SweepSeconds, _Mapping]] = ...) -> None: ...

class SweepSeconds(_message.Message):
    __slots__ = ("wait", "load", "compute")
    WAIT_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    wait: float
    load: float
    compute: float
    def __init__(self, wait: _Optional[float] = ..., load: _Optional[float] = ..., compute: _Optional[float] = ...) -> None: ...

class SweepFailed(_message.Message):
    __slots__ = ("checkpoint", "model", "error")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    checkpoint: int
    model: str
    error: Error
    def __init__(self, checkpoint: _Optional[int] = ..., model: _Optional[str] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class SweepEnd(_message.Message):
    __slots__ = ("done", "failed")
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    done: int
    failed: int
    def __init__(self, done: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class ActivationsRequest(_message.Message):
    __slots__ = ("model", "prompts", "capture", "interventions", "sampling", "logits", "dtype", "tensors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_FIELD_NUMBER: _ClassVar[int]
    INTERVENTIONS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompts: _containers.RepeatedCompositeFieldContainer[Prompt]
    capture: _containers.RepeatedCompositeFieldContainer[Capture]
    interventions: _containers.RepeatedCompositeFieldContainer[Intervention]
    sampling: Sampling
    logits: LogitsOf
    dtype: str
    tensors: bytes
    def __init__(self, model: _Optional[str] = ..., prompts: _Optional[_Iterable[_Union[Prompt, _Mapping]]] = ..., capture: _Optional[_Iterable[_Union[Capture, _Mapping]]] = ..., interventions: _Optional[_Iterable[_Union[Intervention, _Mapping]]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., logits: _Optional[_Union[LogitsOf, _Mapping]] = ..., dtype: _Optional[str] = ..., tensors: _Optional[bytes] = ...) -> None: ...

class Positions(_message.Message):
    __slots__ = ("word", "indices", "span")
    WORD_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    word: str
    indices: Indices
    span: Span
    def __init__(self, word: _Optional[str] = ..., indices: _Optional[_Union[Indices, _Mapping]] = ..., span: _Optional[_Union[Span, _Mapping]] = ...) -> None: ...

class Indices(_message.Message):
    __slots__ = ("indices",)
    INDICES_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, indices: _Optional[_Iterable[int]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("start", "stop")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class Numbers(_message.Message):
    __slots__ = ("numbers",)
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, numbers: _Optional[_Iterable[float]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("tensor", "numbers")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    tensor: str
    numbers: Numbers
    def __init__(self, tensor: _Optional[str] = ..., numbers: _Optional[_Union[Numbers, _Mapping]] = ...) -> None: ...

class Capture(_message.Message):
    __slots__ = ("site", "positions", "heads", "neurons", "reduce")
    SITE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    REDUCE_FIELD_NUMBER: _ClassVar[int]
    site: str
    positions: Positions
    heads: _containers.RepeatedScalarFieldContainer[int]
    neurons: _containers.RepeatedScalarFieldContainer[int]
    reduce: Reduce
    def __init__(self, site: _Optional[str] = ..., positions: _Optional[_Union[Positions, _Mapping]] = ..., heads: _Optional[_Iterable[int]] = ..., neurons: _Optional[_Iterable[int]] = ..., reduce: _Optional[_Union[Reduce, _Mapping]] = ...) -> None: ...

class Reduce(_message.Message):
    __slots__ = ("word", "project", "lens")
    WORD_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    LENS_FIELD_NUMBER: _ClassVar[int]
    word: str
    project: Directions
    lens: Lens
    def __init__(self, word: _Optional[str] = ..., project: _Optional[_Union[Directions, _Mapping]] = ..., lens: _Optional[_Union[Lens, _Mapping]] = ...) -> None: ...

class Directions(_message.Message):
    __slots__ = ("tensor", "rows")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    tensor: str
    rows: _containers.RepeatedCompositeFieldContainer[Numbers]
    def __init__(self, tensor: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[Numbers, _Mapping]]] = ...) -> None: ...

class Lens(_message.Message):
    __slots__ = ("top", "tokens")
    TOP_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    top: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, top: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class Intervention(_message.Message):
    __slots__ = ("site", "op", "positions", "heads", "neurons", "vector", "scale", "low", "high", "from_prompt", "prompts")
    SITE_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    FROM_PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    site: str
    op: str
    positions: Positions
    heads: _containers.RepeatedScalarFieldContainer[int]
    neurons: _containers.RepeatedScalarFieldContainer[int]
    vector: Vector
    scale: float
    low: float
    high: float
    from_prompt: int
    prompts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, site: _Optional[str] = ..., op: _Optional[str] = ..., positions: _Optional[_Union[Positions, _Mapping]] = ..., heads: _Optional[_Iterable[int]] = ..., neurons: _Optional[_Iterable[int]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., scale: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., from_prompt: _Optional[int] = ..., prompts: _Optional[_Iterable[int]] = ...) -> None: ...

class LogitsOf(_message.Message):
    __slots__ = ("tokens", "positions")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    positions: Positions
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., positions: _Optional[_Union[Positions, _Mapping]] = ...) -> None: ...

class ActivationsPart(_message.Message):
    __slots__ = ("header", "data", "summary")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    header: TensorsHeader
    data: bytes
    summary: ActivationsSummary
    def __init__(self, header: _Optional[_Union[TensorsHeader, _Mapping]] = ..., data: _Optional[bytes] = ..., summary: _Optional[_Union[ActivationsSummary, _Mapping]] = ...) -> None: ...

class TensorsHeader(_message.Message):
    __slots__ = ("model", "fingerprint", "nbytes", "tensors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NBYTES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: str
    nbytes: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., nbytes: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ...) -> None: ...

class TensorInfo(_message.Message):
    __slots__ = ("name", "dtype", "shape", "offset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    offset: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., offset: _Optional[int] = ...) -> None: ...

class ActivationsSummary(_message.Message):
    __slots__ = ("num_prompt_tokens", "num_completion_tokens", "seed")
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    num_prompt_tokens: int
    num_completion_tokens: int
    seed: int
    def __init__(self, num_prompt_tokens: _Optional[int] = ..., num_completion_tokens: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class PatchRequest(_message.Message):
    __slots__ = ("model", "clean", "corrupted", "site", "over", "metric", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    CORRUPTED_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    clean: Prompt
    corrupted: Prompt
    site: str
    over: _containers.RepeatedScalarFieldContainer[str]
    metric: Metric
    priority: int
    def __init__(self, model: _Optional[str] = ..., clean: _Optional[_Union[Prompt, _Mapping]] = ..., corrupted: _Optional[_Union[Prompt, _Mapping]] = ..., site: _Optional[str] = ..., over: _Optional[_Iterable[str]] = ..., metric: _Optional[_Union[Metric, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("logit_diff", "logprob")
    LOGIT_DIFF_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    logit_diff: LogitDiff
    logprob: OneToken
    def __init__(self, logit_diff: _Optional[_Union[LogitDiff, _Mapping]] = ..., logprob: _Optional[_Union[OneToken, _Mapping]] = ...) -> None: ...

class LogitDiff(_message.Message):
    __slots__ = ("first", "second")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    first: OneToken
    second: OneToken
    def __init__(self, first: _Optional[_Union[OneToken, _Mapping]] = ..., second: _Optional[_Union[OneToken, _Mapping]] = ...) -> None: ...

class OneToken(_message.Message):
    __slots__ = ("id", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class PatchResponse(_message.Message):
    __slots__ = ("model", "fingerprint", "values", "clean", "corrupted", "layers", "positions", "heads", "tokens")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    CORRUPTED_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: str
    values: _containers.RepeatedCompositeFieldContainer[Numbers]
    clean: float
    corrupted: float
    layers: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    heads: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., values: _Optional[_Iterable[_Union[Numbers, _Mapping]]] = ..., clean: _Optional[float] = ..., corrupted: _Optional[float] = ..., layers: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[str]] = ...) -> None: ...
