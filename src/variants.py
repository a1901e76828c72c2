"""Smaller forms of an ONNX model: half precision, and 8-bit integers by calibration.

N pictures, S their side.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.bundle import INPUT
from src.onnx_file import without_talk

Pixels = npt.NDArray[np.uint8]
_AT_ONCE = 8  # pictures of one step of the calibration


def write_fp16(model: Path, target: Path) -> None:
    """Write a model with half-precision weights and sums; inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with without_talk():
        small = convert_float_to_float16(onnx.load(model), keep_io_types=True)
    target.write_bytes(small.SerializeToString())


def write_int8(model: Path, target: Path, pixels: Pixels) -> None:
    """Write a model with 8-bit weights and maps, of ranges that pictures have shown.

    Static quantization (Jacob et al. 2018, arXiv 1712.05877) by onnxruntime: the weights by
    channel, 7 bits of them, since older processors add two products in 16 bits.

    Args:
        model: The fp32 model.
        target: The file.
        pixels: The pictures to calibrate on, uint8 [N, S, S, 3].
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with without_talk(), tempfile.TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"
        quant_pre_process(str(model), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(target),
            _reader(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _reader(pixels: Pixels) -> Any:
    """Return what hands the pictures to onnxruntime in small blocks."""
    from onnxruntime.quantization import CalibrationDataReader

    class Blocks(CalibrationDataReader):  # type: ignore[misc]  # published without types
        def __init__(self) -> None:
            self.starts = iter(range(0, len(pixels), _AT_ONCE))

        def get_next(self) -> dict[str, Pixels] | None:
            start = next(self.starts, None)
            return None if start is None else {INPUT: pixels[start : start + _AT_ONCE]}

    return Blocks()
