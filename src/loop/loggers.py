"""Where the loggers of a run write: into its run folder."""

from typing import Any

from src.run import RunFolder


def place_loggers(loggers: Any, folder: RunFolder | None, wandb_id: str) -> None:
    """Point the loggers of a parsed config into the run folder, and the run's id into wandb's.

    A relative save_dir is below the run folder.
    """
    if folder is None:
        return
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = getattr(logger, "init_args", None)
        if arguments is None:
            continue
        if "save_dir" in arguments:
            arguments.save_dir = str(folder.path / (arguments.save_dir or ""))
        if logger.class_path.endswith("WandbLogger"):
            arguments.id = arguments.id or wandb_id
            arguments.name = arguments.name or folder.path.name
