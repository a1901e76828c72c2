"""The program: python -m src.train {fit,validate,test,predict} --config configs/NAME.yaml."""

import sys
import time
from collections.abc import Sequence

from src.failures import end_with_message


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, without leaving the interpreter.

    Args:
        args: The words after `python -m src.train`; None takes them from the command line.

    Returns:
        0 if all went well; 2 for what the user can mend in arguments, config, data or checkpoint;
        1 for device, disk, memory and non-finite loss; 130 after Ctrl-C, 143 after another signal.
    """
    began = time.monotonic()
    with end_with_message() as outcome:  # from here on, since importing the rest takes seconds
        from src.cli import run

        run(list(sys.argv[1:] if args is None else args), began)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
