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
_PRODUCTS = ("Gemm", "MatMul")
_OTHER_LAYERS = ("Conv", "ConvTranspose", "Einsum", "RNN", "GRU", "LSTM", "Attention")
_NUMBERS = ("Shape", "Size")  # say nothing of the pixels


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

    try:
        model = _exported(net, temperature, side)
        _strip(model)
        _add_features(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the exporter's errors have no class in common
        first = str(error).strip().splitlines() or [""]
        raise RunFailureError(
            f"{type(net).__name__} can't be written as ONNX: {type(error).__name__}: {first[0]}. "
            "A network of your own must not let its Python code depend on the values of the "
            "pixels, nor on the number of pictures."
        ) from error
    path.write_bytes(model.SerializeToString())


def _exported(net: nn.Module, temperature: float, side: int) -> Any:
    pixels = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    with without_talk():
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
    return program.model_proto


@contextlib.contextmanager
def without_talk() -> Iterator[None]:
    """Keep the talk of exporters to themselves: what matters of it is an error."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


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

    graph = model.graph
    last = _last_weighted(graph)
    if last is None:
        return
    name, width = last
    if _shape_of(model, name) != (_batch_of(graph), width):
        return
    inner = onnx.helper.make_node("Identity", [name], [FEATURES], name=FEATURES)
    graph.node.append(inner)
    shape: list[str | int | None] = [_batch_of(graph), width]
    graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, shape))


def _batch_of(graph: Any) -> str:
    return str(graph.input[0].type.tensor_type.shape.dim[0].dim_param)


def _shape_of(model: Any, name: str) -> tuple[str | int, ...] | None:
    """Return the shape of a value inside the graph, None where it can't be inferred."""
    import onnx

    for found in onnx.shape_inference.infer_shapes(model).graph.value_info:
        if found.name == name:
            return tuple(d.dim_param or d.dim_value for d in found.type.tensor_type.shape.dim)
    return None


def _last_weighted(graph: Any) -> tuple[str, int] | None:
    """Return what the last layer with weights takes, and D.

    None if that is no matrix product, or if two values that depend on the pixels meet behind it.
    """
    makers = {output: node for node in graph.node for output in node.output}
    weights = {found.name: tuple(found.dims) for found in graph.initializer}
    moving = _moving(graph)
    at = graph.output[0].name
    while at in makers:
        node = makers[at]
        if node.op_type in _PRODUCTS:
            shape = weights.get(node.input[1], ())
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            return (node.input[0], shape[turned]) if len(shape) == 2 else None
        inputs = {name for name in node.input if name in moving}
        if node.op_type in _OTHER_LAYERS or len(inputs) != 1:
            return None
        at = inputs.pop()
    return None


def _moving(graph: Any) -> set[str]:
    """Return the names of the values that depend on the pixels, not on their number alone."""
    found = {given.name for given in graph.input}
    for node in graph.node:  # sorted by what they need
        if node.op_type not in _NUMBERS and found.intersection(node.input):
            found.update(node.output)
    return found
