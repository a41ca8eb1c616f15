"""Small local tasks for lm-evaluation-harness, of its three kinds, on text the model knows."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool

DOCUMENT = tool("make_corpus").document
METRICS = {
    "bundled_words": ["perplexity", "acc"],
    "bundled_choices": ["acc", "acc_norm"],
    "bundled_texts": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    "bundled_answers": ["exact_match"],
}
TASKS: dict[str, dict[str, Any]] = {
    # LAMBADA's kind: is the end of a text likely, and is it what the model would write?
    "bundled_words": {"output_type": "loglikelihood", "doc_to_target": "{{target}}"},
    # ARC's kind: which of some continuations is the likeliest?
    "bundled_choices": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
    },
    # WikiText's kind: perplexity of whole texts, some longer than the context.
    "bundled_texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
    },
    # GSM8K's kind: generated text compared with the answer.
    "bundled_answers": {
        "output_type": "generate_until",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 40, "do_sample": False},
    },
}


def write_tasks(folder: Path, docs: int) -> None:
    """Write each task's YAML and data, ``docs`` documents a task."""
    for name, task in TASKS.items():
        data = folder / f"{name}.jsonl"
        rng = random.Random(name)
        made = [MAKERS[name](rng, index) for index in range(docs)]
        data.write_text("".join(json.dumps(doc) + "\n" for doc in made))
        settings = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "{{text}}",
            "target_delimiter": "",
            "metric_list": [{"metric": metric} for metric in METRICS[name]],
            "metadata": {"version": 1.0},
            **task,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))


def _words(rng: random.Random, index: int) -> dict[str, Any]:
    """A text and its next words; every seventh text is longer than the context."""
    text = _text(index, 6 if index % 7 == 6 else 1)
    spaces = [match.start() for match in re.finditer(" ", text)]
    cut = rng.randrange(len(spaces) // 2, len(spaces) - 4)
    return {"text": text[: spaces[cut]], "target": text[spaces[cut] : spaces[cut + 1 + index % 4]]}


def _choices(rng: random.Random, index: int) -> dict[str, Any]:
    """A text and four endings of a sentence, one of them its own."""
    head, _, own = _text(index, 1).partition(". ")
    others = [_text(1000 + index + other, 1).partition(". ")[2] for other in (1, 2, 3)]
    endings = [" " + ending.partition(".")[0] + "." for ending in (own, *others)]
    label = rng.randrange(4)
    endings[0], endings[label] = endings[label], endings[0]
    return {"text": head + ".", "choices": endings, "label": label}


def _texts(rng: random.Random, index: int) -> dict[str, Any]:
    return {"text": _text(index, 8 if index % 5 == 4 else rng.choice([1, 1, 2]))}


def _answers(rng: random.Random, index: int) -> dict[str, Any]:
    """The beginning of a text and the rest of its sentence."""
    text = _text(index, 1)
    cut = text.index(" ", rng.randrange(20, 60))
    return {"text": text[:cut], "target": re.split(r"[\n.]", text[cut:])[0]}


def _text(index: int, count: int) -> str:
    """``count`` documents that the model was not trained on."""
    return "\n\n".join(DOCUMENT(0, "held-out", index * 10 + part) for part in range(count))


MAKERS = {
    "bundled_words": _words,
    "bundled_choices": _choices,
    "bundled_texts": _texts,
    "bundled_answers": _answers,
}
