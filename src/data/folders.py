"""Folders of pictures: which files lie in which class, links followed, system files passed over."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from src.data.tables import OTHER_NAMES
from src.errors import UserError

# Left behind by Windows and by archives made on a Mac; names that start with a dot go as well.
_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass
class Found:
    """Samples (path relative to the root, class, split or "") and what was passed over."""

    samples: list[tuple[str, str, str]] = field(default_factory=list)
    passed_over: int = 0


def labelled_files(root: Path, splits: Sequence[str], *, strict: bool) -> Found:
    """List the files of every class folder, of `root/<split>/<class>` or of `root/<class>`.

    Files outside class folders are ignored. Every file in one counts as a sample: the audit
    decides whether it is a picture.

    Args:
        root: the data's folder.
        splits: the names that make a folder a split and not a class.
        strict: a folder without a single file is an error; else it is as if it were not there.

    Raises:
        UserError: no class folders, a link that leads in a circle, a split by another name.
    """
    top = _subfolders(root)
    deep = {name for name in top if _subfolders(root / name)}
    _check_names(root, deep, top, splits)
    found = Found(passed_over=_count_system_names(root))
    if not deep & set(splits):
        if top and set(top) <= set(splits):  # with the pictures themselves in them, or nothing
            raise _no_classes(root, top[0])
        _add_classes(found, root, "", "", top, strict)
        return found
    for split in splits:
        if split in top:
            found.passed_over += _count_system_names(root / split)
            _add_classes(found, root, split, split, _subfolders(root / split), strict)
    return found


def files_below(folder: Path) -> tuple[list[str], int]:
    """Return all files below a folder, as posix paths relative to it, and what was passed over."""
    files: list[str] = []
    passed_over = _walk(str(folder), "", (os.path.realpath(folder),), files)
    return files, passed_over


def _add_classes(
    found: Found, root: Path, prefix: str, split: str, classes: Sequence[str], strict: bool
) -> None:
    empty = []
    for label in classes:
        files, passed_over = files_below(root / prefix / label)
        found.passed_over += passed_over
        empty += [] if files else [label]
        start = f"{prefix}/{label}" if prefix else label
        found.samples += [(f"{start}/{name}", label, split) for name in files]
    if strict and not classes:
        raise _no_classes(root, prefix)
    if strict and empty:
        raise _empty_classes(root / prefix, empty, len(classes))


def _no_classes(root: Path, prefix: str) -> UserError:
    """Return the error for a folder, the root or a split in it, that holds no class folders."""
    folder = root / prefix
    files = sorted(entry.name for entry in _scan(str(folder)) if not is_system(entry.name))
    found = f"{len(files):,} files, {files[0]} among them" if files[1:] else "nothing"
    found = f"1 file, {files[0]}" if len(files) == 1 else found
    layout = f"{folder}/<class>/<picture>"
    if prefix:
        expected, instead = layout, f"or remove or rename {folder}"
    else:
        expected = f"{layout}, or {folder}/train/<class>/<picture>"
        instead = "or give another folder: --data.root DIR"
    return UserError(
        f"{folder} holds no class folders (found: {found}). Expected is a folder for each class: "
        f"{expected}. Sort the pictures into such folders, {instead}."
    )


def _empty_classes(folder: Path, empty: Sequence[str], count: int) -> UserError:
    if len(empty) == 1:
        what, them = f"The class folder {folder / empty[0]} is empty", "it"
    else:
        part = f"{len(empty)} class" if len(empty) == count else f"{len(empty)} of {count} class"
        shown = ", ".join(empty[:5]) + (" and others" if len(empty) > 5 else "")
        what, them = f"The {part} folders of {folder} are empty: {shown}", "them"
    return UserError(f"{what}. Put pictures into {them}, or remove {them}.")


def _check_names(root: Path, deep: set[str], top: Sequence[str], splits: Sequence[str]) -> None:
    """Refuse `valid` beside `train`: it would be ignored, or be taken for a class."""
    meant = {name: OTHER_NAMES.get(name.lower(), name.lower()) for name in top}
    wrong = [name for name in top if meant[name] in splits and meant[name] != name]
    beside = any(name in splits for name in deep)
    # Without a folder of the right name, these may be classes: unless all hold folders themselves.
    alone = len(top) > 1 and all(name in deep and meant[name] in splits for name in top)
    if wrong and (beside or alone):
        raise UserError(
            f"{root / wrong[0]} looks like a split by another name. "
            f"Rename it to '{meant[wrong[0]]}'; splits are named {', '.join(splits)}."
        )


def is_system(name: str) -> bool:
    """Return whether a file or folder is hidden, or made by the system unasked."""
    return name[0] == "." or name.lower() in _SYSTEM_NAMES


def _scan(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except NotADirectoryError as error:
        raise UserError(
            f"{folder} is neither a folder nor a file. --data.root takes a folder with a folder "
            "for each class, or a CSV with path,label."
        ) from error
    except OSError as error:
        raise UserError(f"{folder} can't be read: {error.strerror or error}.") from error


def _subfolders(folder: Path) -> list[str]:
    entries = _scan(str(folder))
    return sorted(e.name for e in entries if not is_system(e.name) and _is_folder(e))


def _count_system_names(folder: Path) -> int:
    return sum(is_system(entry.name) for entry in _scan(str(folder)))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(
                f"Symbolic links lead in a circle: {entry.path} leads back to itself. Remove the "
                "link."
            ) from error
        raise UserError(f"{entry.path} can't be read: {error.strerror or error}.") from error


def _loop(path: str) -> UserError:
    return UserError(
        f"Symbolic links lead in a circle: {path} is the folder {os.path.realpath(path)} again, "
        "which it lies in. Remove the link."
    )


def _walk(folder: str, prefix: str, above: tuple[str, ...], files: list[str]) -> int:
    """Append the files below `folder` to `files`, each with `prefix`; return what was passed over.

    Python's own walkers either don't enter links to folders or enter a circle for ever, so the
    real paths of the folders `above`, this one last, are carried along.
    """
    passed_over = 0
    for entry in sorted(_scan(folder), key=attrgetter("name")):
        if is_system(entry.name):
            passed_over += 1
        elif _is_folder(entry):
            is_link = entry.is_symlink()
            real = os.path.realpath(entry.path) if is_link else os.path.join(above[-1], entry.name)
            if real in above:
                raise _loop(entry.path)
            passed_over += _walk(entry.path, f"{prefix}{entry.name}/", (*above, real), files)
        elif entry.is_file() or not os.path.exists(entry.path):  # a link to nothing: a damaged file
            files.append(prefix + entry.name)
        else:  # a pipe or a socket, on which a read may wait for ever
            passed_over += 1
    return passed_over
