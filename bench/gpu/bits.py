"""Do prefill, chunked prefill and captured decode give the same bits? Random weights, one GPU."""

from __future__ import annotations

import sys

import torch

from bench.common.random_model import RandomModel, model_config
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.gpu.kernels import TritonKernels

DEVICE = torch.device("cuda")


def batch_of(chunks: list[tuple[list[int], int, list[int]]], size: int) -> ForwardBatch:
    """From (tokens, first position, blocks) of each sequence."""
    rows = [
        (token, start + i, blocks[(start + i) // size] * size + (start + i) % size)
        for tokens, start, blocks in chunks
        for i, token in enumerate(tokens)
    ]
    width = max(len(blocks) for _, _, blocks in chunks)
    starts = [0]
    for tokens, _, _ in chunks:
        starts.append(starts[-1] + len(tokens))

    def ints(values: object) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=DEVICE)

    columns = zip(*rows, strict=True)
    return ForwardBatch(
        *(ints(column) for column in columns),
        ints(starts),
        ints([start + len(tokens) for tokens, start, _ in chunks]),
        ints([blocks + [0] * (width - len(blocks)) for _, _, blocks in chunks]),
    )


def main() -> None:
    for name in sys.argv[1:] or ["pythia-1b"]:
        config = model_config(name)
        kernels = TritonKernels(config, DEVICE)
        model = GPTNeoX(RandomModel(config, DEVICE), kernels)
        cache = kernels.allocate_cache(256)
        size = kernels.block_size
        torch.manual_seed(1)
        ids = torch.randint(0, 50000, (300,)).tolist()
        blocks = list(range(40, 40 + 300 // size + 1))
        whole = model.forward(batch_of([(ids, 0, blocks)], size), cache).clone()
        logits = model.logits(whole)
        print(name, "finite", bool(logits.isfinite().all()), "std", float(logits.std()))
        other = [([5, 6, 7] * 50, 0, list(range(100, 110))), ([9] * 3, 0, [120])]
        start = 0
        for piece in (17, 64, 1, 1, 1, 90, 5, 121):  # with the others: 256 tokens are passed
            if start + piece <= 300:
                chunk = (ids[start : start + piece], start, blocks)
                part = model.forward(batch_of([*other, chunk], size), cache)[-piece:]
                same = torch.equal(part, whole[start : start + piece])
                print(
                    "  chunk",
                    start,
                    piece,
                    "same" if same else "DIFFERENT",
                    float((part - whole[start : start + piece]).abs().max()),
                )
                start += piece
        for rows in (16, 32, 64):
            layer = model.layers[0]
            qkv, _ = kernels.project_in(layer, whole.clone())
            b = batch_of([(ids, 0, blocks)], size)
            out = torch.empty(300, config.hidden_size, dtype=torch.float16, device=DEVICE)
            q = qkv.qkv.clone()
            kernels.launch.prefill_attention(
                q, cache.keys[0], cache.values[0], b, out, 1.0, rows=rows
            )
            if rows == 16:
                first = out.clone()
            print(
                "  attention rows",
                rows,
                torch.equal(out, first),
                float((out.float() - first.float()).abs().max()),
            )
            from pythia_bento.model.kernels.gpu.launch import AttentionScratch

            if rows == 64:
                scratch = AttentionScratch(config, 300, DEVICE)
                dec = torch.empty_like(out)
                lens = torch.arange(1, 301, dtype=torch.int32, device=DEVICE)
                for splits, warps in ((1, 4), (2, 4), (8, 4), (1, 2), (1, 8), (4, 8)):
                    dec.fill_(float("nan"))
                    q = qkv.qkv[299:].clone()
                    kernels.launch.decode_attention(
                        q,
                        cache.keys[0],
                        cache.values[0],
                        lens[299:],
                        b.block_tables,
                        scratch,
                        dec[299:],
                        1.0,
                        splits=splits,
                        warps=warps,
                    )
                    print(
                        "  decode",
                        splits,
                        warps,
                        torch.equal(dec[299], first[299]),
                        float((dec[299].float() - first[299].float()).abs().max()),
                    )


if __name__ == "__main__":
    main()
