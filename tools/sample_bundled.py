"""Print what each kept step of the bundled checkpoint writes after a prompt (greedy, fp32).

python tools/sample_bundled.py --prompt "Once upon a time" --tokens 60
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from transformers import GPTNeoXForCausalLM

BUNDLED = Path(__file__).resolve().parents[1] / "pythia_bento" / "checkpoints" / "bundled"


def continuation(directory: Path, prompt: str, tokens: int) -> str:
    """The greedy text after ``prompt``, without the prompt, at most ``tokens`` tokens."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    model = GPTNeoXForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        pad_token_id=tokenizer.token_to_id("<|padding|>"),
    )
    return tokenizer.decode(output[0, ids.shape[1] :].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description="Sample every kept step of the bundled model.")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--checkpoints", type=Path, default=BUNDLED)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    steps = args.checkpoints.glob("step[0-9]*")
    for directory in sorted(steps, key=lambda path: int(path.name.removeprefix("step"))):
        text = continuation(directory, args.prompt, args.tokens)
        print(f"{directory.name}: {args.prompt}{text}\n")


if __name__ == "__main__":
    main()
