"""Config files looked through before they are parsed, so that a mistake is named where it stands.

jsonargparse reports a wrong class or argument inside a list as a tree of failed unions. Here every
`class_path` is resolved and every argument compared with the class's signature first.
"""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError, nearest

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_OWN_CHECK = "data.augment"  # checked by src.data.transforms, with the same care


def read_config(path: Path) -> dict[str, Any]:
    """Return the contents of a config file.

    Raises:
        UserError: if it is missing, no YAML (with file and line), or no mapping.
    """
    if path.is_dir():
        raise UserError(f"--config {path} is a folder; give a YAML file.")
    if not path.is_file():
        there = [str(p) for p in sorted(Path("configs").rglob("*.yaml"))]
        hint = nearest(str(path), there) or f"there are: {', '.join(there) or 'none here'}"
        raise UserError(f"--config {path}: there is no such file; {hint}")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(
            f"{path}{line}: this is no YAML: {error.problem}. Mend that line."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this is no YAML text file: {error}.") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}; a config is a mapping such as `model: ...`."
        )
    for section in ("model", "data", "trainer"):
        value = (content or {}).get(section, {})
        if not isinstance(value, dict):
            raise UserError(
                f"{path}: {section} is {value!r}; expected are options of it, one a line."
            )
    return content or {}


def check_classes(config: Mapping[str, Any], origin: str) -> None:
    """Resolve every class_path of a config and compare its arguments with the class.

    Args:
        config: Contents of a config file.
        origin: The file's name, for the message.

    Raises:
        UserError: that names the place, and the nearest right name.
    """
    for key, spec in _specs(config, ""):
        if key.startswith(_OWN_CHECK):
            continue
        found = resolve(str(spec["class_path"]), f"{origin}: {key}")
        if found is not None:
            check_arguments(found, spec.get("init_args") or {}, f"{origin}: {key}")


def _specs(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "class_path" in node:
            yield key, node
        for name, child in node.items():
            yield from _specs(child, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _specs(child, f"{key}[{number}]")


def resolve(class_path: str, where: str) -> Any:
    """Return what a dotted class_path names, None for a short name (jsonargparse looks it up).

    Raises:
        UserError: if the module or the class is not there.
    """
    if not _DOTTED.fullmatch(class_path):
        return None
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(_missing_module(class_path, error, where)) from error
    if not hasattr(module, name):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        hint = nearest(name, classes) or f"it has: {', '.join(sorted(classes)[:12])}"
        raise UserError(f"{where}: {module_name} has no class '{name}'; {hint}")
    return getattr(module, name)


def _missing_module(class_path: str, error: ModuleNotFoundError, where: str) -> str:
    if class_path.startswith(f"{error.name}.") or error.name is None:
        top = class_path.split(".")[0]
        hint = nearest(top, ("src", "callbacks", "torch", "lightning", "albumentations"))
        return f"{where}: there is no module '{error.name}' for class_path {class_path}; " + (
            hint or "write the full dotted path, such as src.models.SmallResNet"
        )
    return f"{where}: {class_path} needs the package '{error.name}', which is not installed."


def check_arguments(found: Any, arguments: Any, where: str) -> None:
    """Compare arguments with the signature of what they are for.

    Args:
        found: A class or a function.
        arguments: A mapping of names to values.
        where: The place in the config, for the message.

    Raises:
        UserError: if they are no mapping, or one of them is not there.
    """
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}: init_args is {arguments!r}; expected is a mapping of arguments.")
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):  # a class written in C tells nothing of its arguments
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in arguments:
        if name not in parameters:
            hint = nearest(name, parameters) or f"allowed are {', '.join(parameters)}"
            raise UserError(f"{where}: {found.__name__} has no argument '{name}'; {hint}")


# class_path -> (module that must be there, extra that brings it)
_EXTRAS = {
    "lightning.pytorch.loggers.TensorBoardLogger": ("tensorboard", "tensorboard"),
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger": ("tensorboard", "tensorboard"),
}


def check_extras(loggers: Any) -> None:
    """Raise UserError for a logger whose package is not installed.

    Args:
        loggers: `trainer.logger` of a parsed config: one, a list, or a switch.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        class_path = getattr(logger, "class_path", None)
        module, extra = _EXTRAS.get(str(class_path), (None, None))
        if module and importlib.util.find_spec(module) is None:
            raise UserError(
                f"{class_path} needs the package '{module}', which is not installed. "
                f"Install the extra: pip install -c constraints.txt -e '.[{extra}]'"
            )


def flat(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted names; an empty one is a value."""
    if isinstance(node, Mapping) and node:
        for key, child in node.items():
            yield from flat(child, f"{name}.{key}".lstrip("."))
    else:
        yield name, node
