"""From stored tensors to bitsandbytes' 8-bit format, one part of the model at a time.

Embeddings, norms, biases and the head become fp16 whatever the file holds, as they are in an
8-bit checkpoint: quantising at load and loading the quantised copy give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pythia_bento.checkpoints import tensor_names
from pythia_bento.checkpoints.reader import Bring, Reader, TensorFile, there
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm, Part, parts

_CHUNK = 1 << 22
"""Elements that are quantised at once; about 13 bytes of scratch for each."""


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Float [out, in] to int8 [out, in] and fp32 absmax [out], with the bits of bitsandbytes.

    Like ``bitsandbytes.nn.Int8Params``, without importing it, which takes seconds: the weight is
    rounded to fp16, then ``round(weight * (127 / absmax))`` is computed in fp32, half to even. Rows
    are independent, so working in chunks changes nothing. A row of zeros becomes zeros
    (bitsandbytes leaves it undefined).
    """
    out, depth = weight.shape
    quantized = torch.empty(out, depth, dtype=torch.int8)
    scb = torch.empty(out, dtype=torch.float32)
    step = max(1, _CHUNK // depth)
    for start in range(0, out, step):
        rows = weight[start : start + step].to(torch.float16)
        scale = rows.abs().amax(dim=1).float()
        factor = torch.where(scale == 0, 0, 127.0 / scale)
        quantized[start : start + step] = (rows * factor[:, None]).round_().to(torch.int8)
        scb[start : start + step] = scale
    return quantized, scb


class CheckpointWeights:
    """A ``WeightSource`` over a checkpoint directory: nothing is kept between calls.

    Matrices that need no conversion are views of the file as it is mapped; a backend that keeps one
    copies it. A head that was itself quantised is dequantised to fp16.
    """

    def __init__(
        self,
        directory: Path,
        config: ModelConfig,
        files: Sequence[TensorFile] | None = None,
        bring: Bring = there,
    ) -> None:
        """``files`` as of ``Reader``; raises the same. ``bring`` moves matrices elsewhere."""
        self._config, self._bring = config, bring
        self.reader = Reader(directory, config, files)

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self._config

    def order(self) -> Iterable[Part]:
        """See ``WeightSource``: all are there."""
        return parts(self._config)

    def embedding(self) -> Tensor:
        """fp16 [vocab, hidden]."""
        return self._matrix(tensor_names.EMBEDDING)

    def layer(self, index: int) -> LayerWeights:
        """Read block ``index`` and quantise it where the file holds floats."""
        prefix = tensor_names.layer_prefix(index)
        return LayerWeights(
            input_norm=self._norm(prefix + tensor_names.INPUT_NORM),
            post_attention_norm=self._norm(prefix + tensor_names.POST_ATTENTION_NORM),
            qkv=self._linear(prefix + tensor_names.QKV),
            dense=self._linear(prefix + tensor_names.DENSE),
            up=self._linear(prefix + tensor_names.UP),
            down=self._linear(prefix + tensor_names.DOWN),
        )

    def head(self) -> HeadWeights:
        """Final norm and fp16 head."""
        weight = self._matrix(f"{tensor_names.HEAD}.weight")
        return HeadWeights(self._norm(tensor_names.FINAL_NORM), weight)

    def _linear(self, name: str) -> Int8Linear:
        bias = self._vector(f"{name}.bias")
        if self.reader.entry(f"{name}.weight").dtype == "I8":
            scb = self._scb(name)
            return Int8Linear(self.reader.tensor(f"{name}.weight", self._bring), scb, bias)
        quantized, scb = quantize_rows(self.reader.tensor(f"{name}.weight"))
        self._require_finite(f"{name}.weight", scb)
        return Int8Linear(self._bring(quantized, lambda count: None), scb, bias)

    def _scb(self, name: str) -> Tensor:
        """The scales of an int8 weight, after a look at how its rows are laid out."""
        entry = self.reader.entry(f"{name}.weight")
        if f"{name}.SCB" not in self.reader:
            raise CheckpointError(f"{entry.file} has int8 tensor {entry.stored_name} without SCB")
        if f"{name}.weight_format" in self.reader:
            form = int(self.reader.tensor(f"{name}.weight_format"))
            if form != 0:
                raise CheckpointError(
                    f"{entry.file} stores {entry.stored_name} in weight_format {form}; only 0 "
                    "(by row) can be read"
                )
        scb = self.reader.tensor(f"{name}.SCB").clone()
        self._require_finite(f"{name}.SCB", scb)
        return scb

    def _norm(self, name: str) -> Norm:
        return Norm(self._vector(f"{name}.weight"), self._vector(f"{name}.bias"))

    def _vector(self, name: str) -> Tensor:
        vector = self.reader.tensor(name).to(torch.float16, copy=True)
        self._require_finite(name, vector)
        return vector

    def _matrix(self, name: str) -> Tensor:
        """An fp16 matrix; int8 ones are dequantised."""
        is_final = self.reader.entry(name).dtype == "F16"
        stored = self.reader.tensor(name, self._bring if is_final else there)
        if stored.dtype == torch.int8:
            scb = self._scb(name.removesuffix(".weight"))
            stored = _dequantize(stored, scb)
        matrix = stored.to(torch.float16)
        self._require_finite(name, matrix)
        return matrix

    def _require_finite(self, name: str, values: Tensor) -> None:
        low, high = values.aminmax()
        if not (low.isfinite() and high.isfinite()):
            entry = self.reader.entry(name)
            raise CheckpointError(
                f"tensor {entry.stored_name} in {entry.file} has values that are not finite in fp16"
            )


def _dequantize(weight: Tensor, scb: Tensor) -> Tensor:
    """int8 [out, in] to fp16, in chunks: weight * SCB / 127 in fp32."""
    result = torch.empty(weight.shape, dtype=torch.float16)
    step = max(1, _CHUNK // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        result[rows] = weight[rows].float() * (scb[rows, None] / 127)
    return result
