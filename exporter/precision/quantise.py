"""Quantises one model by nncf: weights per channel, activations by the ranges that rows give them, biases corrected after that.

Of a network with attention, nncf's recipe for transformers leaves softmax, normalisations and activation functions as they are, and
smooths what goes into products. What comes out says QuantizeLinear and DequantizeLinear in the opset that the model had; ONNX Runtime,
Triton and OpenVINO make integer kernels of it.
"""

from __future__ import annotations

import logging
import platform
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from onnx import ModelProto, TensorProto

from contract.dtypes import Array
from contract.system import processor_flags
from exporter.precision.errors import NoQuantiser

Feed = Mapping[str, Array]  # one row by input name
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_MAX_IR_VERSION = 10  # what Triton 24.10 accepts
_VNNI = ("avx512_vnni", "avx_vnni")


def has_attention(models: Sequence[ModelProto]) -> bool:
    """Whether one of `models`, the segments of a network, computes with a softmax."""
    return any(node.op_type == "Softmax" for model in models for node in model.graph.node)


def can_be_quantised(model: ModelProto) -> bool:
    """Whether `model` multiplies by constants in float32, and is not quantised already."""
    weights = {weight.name for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT}
    nodes = model.graph.node
    if any("Quantize" in node.op_type or node.op_type.endswith("Integer") for node in nodes):
        return False
    return any(node.op_type in _PRODUCTS and not weights.isdisjoint(node.input) for node in nodes)


def quantised(model: ModelProto, rows: Sequence[Feed], *, attention: bool) -> ModelProto:
    """Return `model` in int8; inputs and outputs stay as they are. rows: to calibrate with. Raises NoQuantiser."""
    with _quietly():
        nncf = _nncf()
        how = nncf.AdvancedQuantizationParameters(
            overflow_fix=_overflow_fix(nncf, reduces_range(processor_flags(), platform.machine())),
            # its own choice, the mean over rows of the largest of each, cuts off what half of the rows have
            activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
            # its own choice in front of depthwise convolutions, a step for each channel, leaves ONNX Runtime no kernel for integers
            activations_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=False),
        )
        made: ModelProto = nncf.quantize(
            model,
            nncf.Dataset(list(rows)),
            subset_size=len(rows),
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            advanced_parameters=how,
        )
    return _plain(made, model)


def reduces_range(flags: Collection[str], machine: str) -> bool:
    """Whether weights are to have 7 bits: x86 without VNNI adds products in pairs in 16 bits, which weights of 8 bits overflow.

    flags: of the processor. machine: "x86_64" or another architecture.
    """
    return machine in ("x86_64", "AMD64") and not any(flag in flags for flag in _VNNI)


def require_quantiser() -> None:
    """Raise NoQuantiser, before hours of work, where the library is missing."""
    with _quietly():
        _nncf()


def _overflow_fix(nncf: Any, reduce: bool) -> Any:
    fix = nncf.quantization.advanced_parameters.OverflowFix
    return fix.ENABLE if reduce else fix.DISABLE


def _plain(made: ModelProto, model: ModelProto) -> ModelProto:
    """Return `made` without what names its producer, and with nothing later than `model` and Triton know."""
    made.ir_version = min(model.ir_version, _MAX_IR_VERSION)
    made.producer_name, made.producer_version, made.doc_string = "espalier", "", ""
    del made.metadata_props[:]
    del made.graph.value_info[:]
    for node in made.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return made


def _nncf() -> Any:
    """Return the library. It would tell its makers of each use of it (openvino-telemetry) unless asked not to: it does not find that."""
    telemetry = "openvino_telemetry"
    known = sys.modules.get(telemetry)
    if "nncf" not in sys.modules:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import nncf
    except ImportError as error:
        raise NoQuantiser from error
    finally:
        if known is None:
            sys.modules.pop(telemetry, None)
        else:
            sys.modules[telemetry] = known
    return nncf


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the library's bars, logs and warnings, which are about itself, from the user."""
    logger = logging.getLogger("nncf")
    was = logger.disabled
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = was
