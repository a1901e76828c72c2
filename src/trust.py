"""What a file from elsewhere may name: looked through before anything is imported.

Naming a class imports its module, and importing runs it. The user's own configs may do that; a
`config.yaml` out of a run folder and the hyper parameters in a checkpoint may come from a stranger.
Only classes that this project and its libraries define, and that a run is built from, are taken
from those; the user can vouch for more by `--trust_code PREFIX`.
"""

import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError

# Of Lightning the rooms that a Trainer takes parts from, not the whole: lightning.pytorch.cli, for
# one, holds a class that reads a config of its own, which nobody has looked through.
TRUSTED = (
    *("src.models", "src.data", "src.loop", "src.schedules", "src.muon", "callbacks"),
    *("torch.optim", "torch.nn", "albumentations"),
    *("lightning.pytorch.accelerators", "lightning.pytorch.callbacks"),
    *("lightning.pytorch.loggers", "lightning.pytorch.plugins", "lightning.pytorch.profilers"),
    *("lightning.pytorch.strategies", "lightning.pytorch.cli.ReduceLROnPlateau"),
)

# Options that a run folder never stores; in one, they were written by hand.
NEVER_STORED = (
    *("config", "run_dir", "ckpt_path", "init_from", "init_optimizer"),
    *("trust_code", "allow_drift", "find_lr", "minutes", "print_config", "subcommand"),
)

# Text of the user's that is typed as text in our own code or in a logger's: no parser makes a class
# or reads a config from it, and `data.csv` or `bees.v2` looks like a dotted name beside a folder
# `data`. Everywhere else a string may stand for a function or a file, so none is exempt.
_PLAIN = re.compile(
    r"data\.(root|classes)|data\.source\.init_args\.(url|sha256|subfolder|name)"
    r"|trainer\.logger\.init_args\.(name|project|entity|group|job_type|notes|tags|id|version"
    r"|prefix|save_dir|dir)"
)
_OWN_AUGMENT = "data.augment"  # a name without dots is one of Albumentations there
_DEEPEST = 40
_MOST = 100_000


@dataclass(frozen=True)
class Origin:
    """Where a config comes from.

    Attributes:
        name: the file, for messages.
        place: what the user took it from, for messages.
        prefixes: what the user vouches for, beside TRUSTED.
        remedy: how to vouch; `{}` stands for the prefix.
        folder: where relative paths would be looked up besides the current folder.
    """

    name: str
    place: str = "the run folder"
    prefixes: tuple[str, ...] = ()
    remedy: str = "--trust_code {}"
    folder: Path | None = None

    def __post_init__(self) -> None:
        for prefix in self.prefixes:
            if not _is_dotted(prefix, least=1):
                raise UserError(
                    f"--trust_code is {prefix!r}; give the first part of a class path, such as "
                    "my_nets or my_nets.tiny."
                )

    @property
    def trusted(self) -> tuple[str, ...]:
        """All prefixes that may be named."""
        return (*TRUSTED, *self.prefixes)


def check_stored_config(config: Mapping[str, Any], origin: Origin) -> None:
    """Raise UserError if a stored config sets what is never stored."""
    for key in config:
        if re.split(r"[.+]", str(key))[0] in NEVER_STORED:
            raise UserError(
                f"{origin.name} sets {key}, which {origin.place} never stores: the file was "
                f"changed by hand. Take that line out and give --{key} on the command line."
            )


def check_names(config: Mapping[str, Any], origin: Origin) -> None:
    """Look through a config from elsewhere; imports nothing outside the trusted packages.

    Args:
        config: Plain data.
        origin: Where it comes from, and what the user vouches for.

    Raises:
        UserError: for a class, function or file that nobody vouched for, with the place.
    """
    for number, (key, text, plain) in enumerate(_strings(config, "", True, 0, origin)):
        if number > _MOST:
            raise UserError(f"{origin.name} holds more than {_MOST:,} values: this is no config.")
        if key.split(".")[-1] == "class_path":
            _check_class_path(key, text, origin)
        elif not (plain and _PLAIN.fullmatch(key)):
            _check_text(key, text, origin)


def _strings(
    node: Any, key: str, plain: bool, depth: int, origin: Origin
) -> Iterator[tuple[str, str, bool]]:
    """Yield (key, text, whether it stood there as such) for all strings, lists without numbers."""
    if depth > _DEEPEST:
        raise UserError(f"{origin.name}: {key[:60]} is nested too deeply for a config.")
    if isinstance(node, Mapping):
        for name, child in node.items():
            below = f"{key}.{str(name).rstrip('+')}".lstrip(".")
            if below.split(".")[-1] == "class_path" and not isinstance(child, str):
                raise UserError(f"{origin.name}: {below} is {child!r}; expected is a dotted name.")
            if not plain:  # `!!set {a.b}` in a text is a mapping here and a list for the parser
                yield key, str(name), plain
            yield from _strings(child, below, plain, depth + 1, origin)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _strings(child, key, plain, depth + 1, origin)
    elif isinstance(node, str):
        yield key, node, plain
        # The parser takes a string that is YAML for what it says.
        yield from _strings(_collection(node), key, False, depth + 1, origin)
    elif node is not None and not isinstance(node, (bool, int, float)):
        raise UserError(
            f"{origin.name}: {key} is a {type(node).__name__}; a config holds mappings, lists, "
            "text and numbers."
        )


def _collection(text: str) -> Any:
    """Return the mapping or list that a text is in YAML, every leaf of it as text, or None."""
    try:
        # jsonargparse's own parser, but without types: a date of month 99 fails there alone.
        found = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except (yaml.YAMLError, ValueError):  # the parser then takes the text as it is, too
        return None
    return found if isinstance(found, (dict, list)) else None


def _check_class_path(key: str, text: str, origin: Origin) -> None:
    place = key.rpartition(".")[0]
    if place.startswith(_OWN_AUGMENT) and text.isidentifier():
        text = f"albumentations.{text}"
    if not _is_dotted(text):
        raise UserError(
            f"{origin.name}: {place} names the class {text!r}; {origin.place} stores full dotted "
            "names, such as src.models.SmallResNet."
        )
    _check_dotted(place, text, origin)


def _check_text(key: str, text: str, origin: Origin) -> None:
    if _is_dotted(text) and _is_importable(text.split(".")[0]):
        return _check_dotted(key, text, origin)
    if "://" in text or "::" in text or _is_text_file(text, origin.folder):
        raise UserError(
            f"{origin.name}: {key} is {text}, a file or an address that more config could be read "
            f"from. It comes from {origin.place}. If it is yours, take that line out of "
            f"{Path(origin.name).name} and give --{key} on the command line."
        )


def _is_dotted(text: str, least: int = 2) -> bool:
    parts = text.split(".")
    return len(parts) >= least and all(part.isidentifier() for part in parts)


def _is_importable(top: str) -> bool:
    """Whether there is such a module or folder; of a name without dots, this imports nothing."""
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # ValueError: loaded, and nobody knows from where
        return True


def _is_text_file(text: str, folder: Path | None) -> bool:
    name = os.path.expanduser(text)
    return any(_opens_as_text(path) for path in (name, os.path.join(folder or "", name)))


def _opens_as_text(path: str) -> bool:
    if not os.path.isfile(path):
        return os.path.exists(path) and not os.path.isdir(path)  # a pipe would block the reader
    try:
        with open(path) as file:  # the encoding that the parser would use
            return all(True for _ in file)
    except (OSError, ValueError):  # weights, for instance
        return False


def is_under(path: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted path is one of the prefixes or goes on from one behind a dot."""
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def _check_dotted(key: str, path: str, origin: Origin) -> None:
    if not is_under(path, origin.trusted):
        raise _refused(key, path, path, origin)
    found = _find(key, path, origin)
    if is_under(path, origin.prefixes) and not _home(found):
        return  # an object in a module of the user's own
    if not is_under(_home(found), origin.trusted):
        raise _refused(key, f"{path}, which is {_home(found) or type(found)}", _home(found), origin)
    if not inspect.isclass(found) and not is_under(_home(found), origin.prefixes):
        raise _refused(key, f"{path}, which is no class", path, origin)


def _find(key: str, path: str, origin: Origin) -> Any:
    """Return what a path under a trusted prefix names; steps into no module of others."""
    parts = path.split(".")
    found: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        here = ".".join(parts[:number])
        found = _step(found, part, here, last=number == len(parts))
        if found is None:
            raise UserError(f"{origin.name}: {key} is {path}, and there is no {here}.")
        known = here if inspect.ismodule(found) else ""
        if number < len(parts) and not is_under(_home(found), (*origin.trusted, known)):
            raise _refused(
                key, f"{path}, where {here} is {_home(found)}", _home(found) or path, origin
            )
    return found


def _step(found: Any, part: str, here: str, last: bool) -> Any:
    """Return an attribute or submodule, whichever `from ... import ...` would; None for neither."""
    if last and hasattr(found, part):
        return getattr(found, part)
    if inspect.ismodule(found):
        try:
            return importlib.import_module(here)
        except ImportError:  # no such module, or one that needs a package which is not there
            pass
    return getattr(found, part, None)


def _home(found: Any) -> str:
    """Return the dotted path that a module, class or function was defined by, '' for others."""
    if inspect.ismodule(found):
        return found.__name__
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return ""
    return f"{getattr(found, '__module__', None) or 'builtins'}.{found.__qualname__}"


def _refused(key: str, what: str, path: str, origin: Origin) -> UserError:
    top, _, rest = path.partition(".")
    own = top in {prefix.split(".")[0] for prefix in TRUSTED}
    prefix = path.rpartition(".")[0] if own and rest else top
    return UserError(
        f"{origin.name}: {key} names {what}. You are asked because that name comes from "
        f"{origin.place}, which may be a stranger's, and importing it would run code. Taken "
        f"without asking are classes of {', '.join(TRUSTED)}. If you trust the code, add "
        f"{origin.remedy.format(prefix or 'PREFIX')}."
    )


def check_hyper_parameters(
    checkpoint: Mapping[str, Any], path: Path, given: Sequence[str], prefixes: Sequence[str]
) -> None:
    """Look through what a checkpoint says that its module is built from.

    Args:
        checkpoint: Its contents.
        path: Its file.
        given: Arguments that the caller gives himself, in their stead.
        prefixes: What the caller vouches for.

    Raises:
        UserError: for a class, function or file that nobody vouched for.
    """
    own = ("src.classifier.Classifier", *prefixes)
    origin = Origin(str(path), "the checkpoint", own, 'trust_code=["{}"]')
    for place in ("hyper_parameters", "hparams", "module_arguments"):  # all that Lightning reads
        stored = checkpoint.get(place) or {}
        if not isinstance(stored, Mapping):
            raise UserError(f"{path}: {place} is {stored!r}; expected is a mapping of arguments.")
        kept = {name: value for name, value in stored.items() if name not in given}
        if kept.get("_instantiator") == "lightning.pytorch.cli.instantiate_module":
            del kept["_instantiator"]  # a function, and the one that builds the module
        check_names(kept, origin)


def root_for_lightning(folder: Path) -> Path:
    """Return where Lightning may write: a run folder, or a folder in it if that holds hpc_ckpt_N.

    Under SLURM Lightning loads such a checkpoint from its root folder unasked, over the weights
    that the run was told to begin with.
    """
    root = folder.absolute()
    while any(root.glob("*hpc_ckpt_*")):
        root = root / "lightning"
        root.mkdir(exist_ok=True)
    return root
