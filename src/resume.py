"""Which checkpoint a run goes on from: the newest one that is whole and its own."""

import os
import shutil
from pathlib import Path

from src.checkpoint import check_belongs, read_checkpoint
from src.errors import UserError
from src.run import RunFolder


def newest_whole(folder: RunFolder) -> tuple[Path, list[str]]:
    """Return last.ckpt, or previous.ckpt where that one is newer or the only whole one.

    Args:
        folder: A run folder with at least one of them.

    Returns:
        The file, and what is wrong with last.ckpt, if it is not the file: a line for the user.

    Raises:
        UserError: that names both files, if none can be used.
    """
    steps: dict[Path, int] = {}
    wrong: list[str] = []
    for path in (folder.last, folder.previous):
        if path.is_dir():
            raise UserError(f"{path} is a folder, where a checkpoint belongs. Move it away.")
        if not path.is_file():
            continue
        try:
            steps[path] = _step(path, folder.run_id)
        except UserError as error:
            wrong.append(str(error).partition(" Take another")[0])
    if not steps:
        raise UserError(
            f"{' '.join(wrong)} No checkpoint is left to go on from. Start a new run from the best "
            f"weights: --init_from {folder.best}."
            if folder.best.is_file()
            else f"{' '.join(wrong)} No checkpoint is left to go on from: start a new run."
        )
    newest = max(steps, key=lambda path: (steps[path], path == folder.last))
    if newest != folder.last and folder.last in steps:
        wrong.append(
            f"{folder.last} is older (step {steps[folder.last]}) than {newest.name} (step "
            f"{steps[newest]}): they were exchanged."
        )
    if newest != folder.last and not wrong:
        wrong.append(f"{folder.last} is missing.")
    return newest, wrong if newest != folder.last else []


def _step(path: Path, run_id: str | None) -> int:
    content = read_checkpoint(path)
    check_belongs(path, content, run_id)
    return int(content.get("global_step", 0))


def set_aside(folder: RunFolder, used: Path) -> None:
    """Rename a last.ckpt that is not used; the used one is last.ckpt then, under both names."""
    if used == folder.last:
        return
    if folder.last.is_file():
        folder.last.replace(folder.last.with_name("last.unused.ckpt"))
    try:
        os.link(used, folder.last)
    except OSError:  # no hard links here
        shutil.copyfile(used, folder.last)
