"""validate, test and predict: a checkpoint, and what it says of the pictures."""

from dataclasses import dataclass
from typing import Any

from src import checkpoint, results
from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.errors import UserError
from src.memory import keep_freed_memory
from src.run_rules import Plan
from src.scored import MARK
from src.seal import mark_of


@dataclass(frozen=True)
class Scoring:
    """The parts of a command that scores or predicts.

    Attributes:
        trainer: On one device, unless told otherwise.
        model: Gets the weights of the checkpoint.
        data: The pictures.
        plan: Run folder and checkpoint.
    """

    trainer: Any
    model: Classifier
    data: DataModule
    plan: Plan

    def score(self, command: str, parts: dict[str, Any], suffix: str = "") -> None:
        """Score the pictures of `validate` or `test`, and write COMMAND.json and COMMAND.csv.

        Args:
            command: validate or test.
            parts: The arguments of the Trainer's method.
            suffix: Behind the names of the files.
        """
        self._evaluate(command, parts)
        if not self._writes:
            return
        folder, path = self.plan.folder, self.plan.checkpoint
        assert folder is not None and path is not None and self.model.table is not None
        index = self.data.index(command)
        more = {
            "checkpoint": path.name,
            MARK: mark_of(path),
            "data_fingerprint": index.fingerprint(),
        }
        target = folder.path / f"{command}{suffix}.json"
        table, decision = self.model.table, self.model.decision
        results.write_scores(target, index.paths, table, index.classes, decision, more)
        print(target)

    def predict(self, parts: dict[str, Any]) -> None:
        """Predict every picture, and write predictions.csv.

        Raises:
            UserError: at the end, if files could not be decoded and data.on_bad_image is `error`.
        """
        self._evaluate("predict", parts)
        if not self._writes:
            return
        folder, found = self.plan.folder, self.data.found("predict")
        assert folder is not None and self.model.table is not None
        results.write_predictions(
            folder.predictions,
            found.listed,
            found.errors,
            found.index.paths,
            self.model.table,
            self.data.classes,
            self.model.decision,
        )
        print(folder.predictions)
        if found.errors and self.data.on_bad_image == "error":
            raise UserError(
                f"{len(found.errors)} of {len(found.listed)} files can't be decoded; the column "
                "error says why. --data.on_bad_image skip takes this as no mistake."
            )

    @property
    def _writes(self) -> bool:
        return self.trainer.is_global_zero and not self.trainer.fast_dev_run

    def _evaluate(self, command: str, parts: dict[str, Any]) -> None:
        path, folder = self.plan.checkpoint, self.plan.folder
        assert path is not None
        if self._writes and folder is not None:
            folder.require_writable("copy the run folder to where you can write")
        content = checkpoint.read_checkpoint(path)
        if folder is not None and path.parent == folder.checkpoints:
            checkpoint.check_belongs(path, content, folder.run_id)
        checkpoint.check_fits(path, content, self.model)
        checkpoint.check_preprocessing(path, content, self.data.preprocessing.to_dict())
        self.data.prepare(command)
        keep_freed_memory()
        getattr(self.trainer, command)(**parts, ckpt_path=path, weights_only=True)
        if self.model.table is None:
            raise UserError(
                f"nothing was scored: --trainer.limit_{command}_batches is 0. Leave it out."
            )
        notes = self.data.found(command).notes
        if notes and self.trainer.is_global_zero:
            print(f"notes: {', '.join(f'{n} {note}' for note, n in notes.items())}")
