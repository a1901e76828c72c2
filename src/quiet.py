"""Lines of the libraries that tell a user of ours nothing, left out one by one."""

import logging
import re
import warnings

# text of a warning -> why it says nothing here
_WARNINGS = (
    # Our loaders choose their workers by data.num_workers; the default of 0 is meant.
    r".*does not have many workers which may be a bottleneck",
    # metrics.csv holds the epochs' losses; a short epoch logs no single steps, and need not.
    r"The number of training batches .* is smaller than the logging interval",
    # Scoring needs the weights alone: https://github.com/Lightning-AI/pytorch-lightning/pull/9254
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    # The blocks are complete by construction (src.data.sampler).
    r"You are using a custom batch sampler `EvaluationBlocks` for prediction",
    # predict_step collects rows; the table is the result.
    r"predict returned None if it was on purpose",
    # Every process computes the same scores from the same table.
    r"It is recommended to use `self\.log\('(val|train)/.*sync_dist=True\)`",
    # A frozen body is meant to stay in evaluation mode (src.models.backbone).
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # data.val_fraction 0 means no validation.
    r"Total length of `list` across ranks is zero",
    # Inside Lightning: https://github.com/pytorch/pytorch/pull/160843
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # A scheduler of torch is stepped by Lightning after the optimizer; torch misses its wrapper.
    r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`",
)

# Lines at level INFO: advertising, and the way Lightning saves (loading is what must be safe).
_LINES = re.compile(
    r"Tip: |Loading `train_dataloader` to estimate|`weights_only` was not set|litlogger|LitLogger"
)
_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.trainer.connectors.logger_connector.logger_connector",
    "lightning.pytorch.trainer.connectors.callback_connector",
)


class _WithoutLines(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return _LINES.search(record.getMessage()) is None


def quiet_libraries() -> None:
    """Set the filters, once in a process."""
    for text in _WARNINGS:
        warnings.filterwarnings("ignore", message=text)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _WithoutLines) for f in logger.filters):
            logger.addFilter(_WithoutLines())
