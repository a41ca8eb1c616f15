"""Train the bundled checkpoint: a tiny GPT-NeoX in the Pythia mould, with several steps kept.

    python tools/train_bundled.py

writes ``pythia_bento/checkpoints/bundled``: one directory for each kept step, laid out as a hub
snapshot (fp16 ``model.safetensors``, ``config.json``, ``tokenizer.json``, ...), the manifest that
names every file by its sha256, and ``training.jsonl`` with the training loss. One thread and
fixed seeds: the same command, versions and kind of CPU give the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import json
import math
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import numpy
import safetensors
import tokenizers
import torch
import transformers
from make_corpus import as_one_text, documents
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
TOKENS = 1000
VOCAB_ROWS = 1024  # padded as Pythia pads: the ids from TOKENS on have logits but no token
CONTEXT = 512
HELD_OUT_WINDOWS = 32
# As on the hub: this class is the one that transformers 4 and 5 both load.
TOKENIZER_CONFIG = {
    "add_prefix_space": False,
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "model_max_length": CONTEXT,
    "tokenizer_class": "GPTNeoXTokenizer",
    "unk_token": END_OF_TEXT,
}
OUTPUT = Path(__file__).resolve().parents[1] / "pythia_bento" / "checkpoints" / "bundled"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the bundled checkpoint.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=3000, help="training steps; the last is main")
    parser.add_argument("--keep", type=int, nargs="*", default=[0, 64, 256, 512, 1000],
                        help="further steps to keep, where below --steps")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the corpus and the weights")
    parser.add_argument("--megabytes", type=float, default=24.0, help="size of the corpus")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="a multiple of 512")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak; cosine to 10 %%")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="step directories go here")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.batch_tokens < CONTEXT or args.batch_tokens % CONTEXT:
        parser.error(f"--steps must be positive and --batch-tokens a multiple of {CONTEXT}")
    return args


def recorded_command(args: argparse.Namespace) -> str:
    """The command that makes these bytes again; ``--output`` does not change them."""
    keep = " ".join(map(str, args.keep))
    return (
        f"python tools/train_bundled.py --steps {args.steps} --keep {keep} --seed {args.seed} "
        f"--megabytes {args.megabytes:g} --batch-tokens {args.batch_tokens} "
        f"--learning-rate {args.learning_rate:g}"
    )


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE with the parts of the GPT-NeoX tokenizer, on the first megabytes only."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[AddedToken(name, normalized=False) for name in (END_OF_TEXT, PADDING)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:5000], trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """int64 [tokens]: the documents in order, an end of text after each."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return torch.tensor([id for item in encodings for id in (*item.ids, end)])


def held_out_tokens(seed: int, tokenizer: Tokenizer) -> Tensor:
    """int64 [HELD_OUT_WINDOWS * CONTEXT] of text that training never sees."""
    needed = HELD_OUT_WINDOWS * CONTEXT
    # A token is between three and four bytes here, so this many bytes are enough.
    return encode(tokenizer, list(documents(seed, "held-out", 8 * needed)))[:needed]


def new_model() -> GPTNeoXForCausalLM:
    """Every field that makes a Pythia is written out: the class defaults differ."""
    config = GPTNeoXConfig(
        vocab_size=VOCAB_ROWS, hidden_size=128, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=512, max_position_embeddings=CONTEXT, hidden_act="gelu",
        use_parallel_residual=True, attention_bias=True, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, layer_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25
        },
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


def new_optimizer(model: GPTNeoXForCausalLM, args: argparse.Namespace) -> torch.optim.AdamW:
    """AdamW as Pythia sets it: betas 0.9 and 0.95, weight decay 0.01 on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)


def rate(step: int, args: argparse.Namespace) -> float:
    """Learning rate of ``step`` (from 1): linear warm-up over 3 %, then cosine to 10 %."""
    warmup = max(1, args.steps * 3 // 100)
    if step <= warmup:
        return float(args.learning_rate * step / warmup)
    done = (step - warmup) / max(1, args.steps - warmup)
    return float(args.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done))))


def batch_of(tokens: Tensor, step: int, batch_tokens: int) -> Tensor:
    """int64 [batch, length] for ``step``: the next stretch of the corpus, from the start again
    at its end. Odd steps have the full context, even steps half, so both get trained."""
    length = CONTEXT if step % 2 else CONTEXT // 2
    first = (step - 1) * batch_tokens % (len(tokens) - batch_tokens)
    return tokens[first : first + batch_tokens].view(-1, length)


def loss_of(model: GPTNeoXForCausalLM, batch: Tensor) -> Tensor:
    """Mean cross-entropy of the next token in nats; the first token of a row is not scored."""
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def as_saved(model: GPTNeoXForCausalLM) -> GPTNeoXForCausalLM:
    """A copy with the weights rounded to fp16, which is what a kept step holds."""
    return copy.deepcopy(model).half().eval()


@torch.no_grad()
def held_out_loss(saved: GPTNeoXForCausalLM, held_out: Tensor) -> float:
    """Of the fp16 weights as stored, computed in fp32 as they are served."""
    model = copy.deepcopy(saved).float()
    rows = [loss_of(model, part) for part in held_out.view(-1, CONTEXT).split(8)]
    return round(float(torch.stack(rows).mean()), 4)


def snapshot_entry(directory: Path) -> dict[str, Any]:
    """Files by name with sha256 and size, and the commit: the sha1 over the sorted lines
    ``<sha256>  <name>``, which is what ``sha256sum * | sort | sha1sum`` prints."""
    files = {}
    for path in sorted(directory.iterdir()):
        path.chmod(0o644)
        data = path.read_bytes()
        files[path.name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    lines = sorted(f"{file['sha256']}  {name}\n" for name, file in files.items())
    return {"commit": hashlib.sha1("".join(lines).encode()).hexdigest(), "files": files}


def save_step(
    step: int, model: GPTNeoXForCausalLM, tokenizer: Tokenizer, held_out: Tensor, output: Path
) -> dict[str, Any]:
    """Write ``<output>/step<step>`` and return its entry in the manifest."""
    directory = output / f"step{step}"
    saved = as_saved(model)
    saved.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    loss = held_out_loss(saved, held_out)
    return {"step": step, "held_out_loss": loss, **snapshot_entry(directory)}


def train_step(
    model: GPTNeoXForCausalLM, optimizer: torch.optim.AdamW, batch: Tensor, rate: float
) -> float:
    """One update; returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = loss_of(model, batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return round(float(loss.detach()), 4)


def train(
    args: argparse.Namespace, tokenizer: Tokenizer, tokens: Tensor, held_out: Tensor
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train and save; returns the manifest's steps and one log record for each step."""
    torch.manual_seed(args.seed)
    model = new_model().train()
    optimizer = new_optimizer(model, args)
    kept, log = {}, []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("training", total=args.steps)
        for step in range(args.steps + 1):
            if step:
                batch, lr = batch_of(tokens, step, args.batch_tokens), rate(step, args)
                loss = train_step(model, optimizer, batch, lr)
                log.append({"step": step, "loss": loss, "learning_rate": round(lr, 8)})
                progress.update(bar, completed=step, description=f"training, loss {loss:.3f}")
            if step == args.steps or step in args.keep:
                entry = save_step(step, model, tokenizer, held_out, args.output)
                kept[f"step{step}"] = entry
                progress.print(f"step {step}: held-out loss {entry['held_out_loss']:.4f}")
    return kept, log


def versions() -> dict[str, str]:
    named = (torch, transformers, tokenizers, safetensors, numpy)
    return {"python": platform.python_version(), **{m.__name__: m.__version__ for m in named}}


def clear(output: Path) -> None:
    """Remove what an earlier run left in ``output``, and nothing else."""
    output.mkdir(parents=True, exist_ok=True)
    for directory in output.glob("step[0-9]*"):
        shutil.rmtree(directory)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    started = time.monotonic()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    clear(args.output)
    texts = list(documents(args.seed, "train", int(args.megabytes * 1e6)))
    tokenizer = train_tokenizer(texts)
    tokens = encode(tokenizer, texts)
    held_out = held_out_tokens(args.seed, tokenizer)
    print(f"{len(texts)} documents, {len(tokens)} tokens, {tokenizer.get_vocab_size()} in use")
    kept, log = train(args, tokenizer, tokens, held_out)
    manifest = {
        "command": recorded_command(args),
        "seed": args.seed,
        "versions": versions(),
        "corpus_sha256": hashlib.sha256(as_one_text(texts).encode()).hexdigest(),
        "steps": kept,
        "main": f"step{args.steps}",
    }
    records = itertools.chain(map(json.dumps, log), [""])
    (args.output / "training.jsonl").write_text("\n".join(records))
    (args.output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
