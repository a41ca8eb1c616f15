"""Services that depend on this one."""

# Of the gateway's own application, by names that are ours, too.
PATHS = ("/v1/completions", "/v1/models", "/tokenize", "/playground", "/tokenizer_info")
