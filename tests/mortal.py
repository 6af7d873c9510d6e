"""The command line in a process that a step of the training kills, the first time it is started.

    python mortal.py RANK STEP train …

Process RANK dies before its STEP-th step.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from tiedexport.__main__ import main
from tiedexport.training.trainer import Trainer
from tiedexport.training.worker import restarted


def die_in_step(number: int) -> None:
    """Let a step of any trainer kill this process."""
    step = Trainer.step
    taken = 0

    def counted(trainer: Trainer, *arguments: Any) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, *arguments)

    Trainer.step = counted


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, number, *words = sys.argv[1:]
    if os.environ["RANK"] == rank and not restarted():
        die_in_step(int(number))
    main(words)
