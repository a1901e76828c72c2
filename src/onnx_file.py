"""A trained network as an ONNX file: pixels in, calibrated probabilities and features out.

N pictures, S their side, C classes, D features.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.bundle import FEATURES, INPUT, PROBABILITIES
from src.errors import RunFailureError, UserError

OPSET = 18  # of 2022: what onnxruntime 1.14 and later read
_WEIGHTED = ("Gemm", "MatMul")


class Calibrated(nn.Module):
    """A network that returns probabilities after the temperature.

    Args:
        net: uint8 [N, S, S, 3] -> logits [N, C].
        temperature: Logits are divided by it, above 0.
    """

    def __init__(self, net: nn.Module, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = net, temperature

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float32 [N, C] for uint8 [N, S, S, 3]."""
        return torch.softmax(self.net(pixels).float() / self.temperature, dim=1)


def require() -> None:
    """Raise UserError if ONNX files can't be written here."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import safetensors  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'the export needs {error.name}, which is not installed: pip install -e ".[export]"'
        ) from error


def write_onnx(net: nn.Module, temperature: float, side: int, path: Path) -> None:
    """Write a network with its normalisation and temperature inside, the batch of any size.

    Args:
        net: On the CPU, in the mode of evaluation.
        temperature: Logits are divided by it.
        side: S.
        path: The file.

    Raises:
        RunFailureError: the network does what ONNX can't say.
    """
    import onnx

    pixels = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                Calibrated(net, temperature).eval(),
                (pixels,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[PROBABILITIES],
                opset_version=OPSET,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # the exporter's errors have no class in common
        first = str(error).strip().splitlines() or [""]
        raise RunFailureError(
            f"{type(net).__name__} can't be written as ONNX: {type(error).__name__}: {first[0]}. "
            "A network of your own must not let its Python code depend on the values of the "
            "pixels, nor on the number of pictures."
        ) from error
    _strip(model)
    _add_features(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's talk to itself: what matters of it is an error."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip(model: Any) -> None:
    """Take out the exporter's notes: they name folders of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info,
                 *graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in model.functions:
        raise AssertionError(f"the exporter has left a function: {function.name}")


def _add_features(model: Any) -> None:
    """Make what the last layer with weights takes an output, where that is one row a picture."""
    import onnx

    last = _last_weighted(model.graph)
    if last is None:
        return
    name, width = last
    graph = model.graph
    if name in {found.name for found in graph.input}:
        return
    inner = onnx.helper.make_node("Identity", [name], [FEATURES], name=FEATURES)
    graph.node.append(inner)
    shape: list[str | int | None] = [_batch_of(graph), width]
    graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, shape))


def _batch_of(graph: Any) -> str:
    return str(graph.input[0].type.tensor_type.shape.dim[0].dim_param)


def _last_weighted(graph: Any) -> tuple[str, int] | None:
    """Return what the last matrix product takes, and D; None if no such thing precedes the end."""
    makers = {output: node for node in graph.node for output in node.output}
    weights = {found.name: tuple(found.dims) for found in graph.initializer}
    at = graph.output[0].name
    while at in makers:
        node = makers[at]
        if node.op_type in _WEIGHTED:
            shape = weights.get(node.input[1], ())
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            return (node.input[0], shape[turned]) if len(shape) == 2 else None
        at = next((name for name in node.input if name not in weights), "")
    return None
