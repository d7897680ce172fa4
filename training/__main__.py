"""``python -m training COMMAND``: makes the bundled model, or adapters from one's own recordings.

In: command-line arguments. Out: files, and lines for a person; exit status 0 all well, 1 a manifest
has problems, 2 nothing could be done: a mistake of the caller's is one line on stderr.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from core.errors import UserError
from training import commands, stage_commands

LOG = logging.getLogger(__name__)
NOTHING_DONE = 2


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=0)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage_commands.add_commands(stages)
    commands.add_commands(stages)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    try:
        _refuse_several_processes(arguments.stage)
        return int(arguments.run(arguments) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except Exception:
        LOG.exception("%s failed", arguments.stage)
        print("error: an unexpected problem; its details are above", file=sys.stderr)
    return NOTHING_DONE


def _refuse_several_processes(stage: str) -> None:
    """Refuse torchrun for a stage whose processes would write the same files.

    Raises:
        UserError: the environment speaks of several processes.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size != "1" and stage not in ("joint", "ctc"):
        raise UserError(
            f"{stage} runs in one process, and WORLD_SIZE is {size!r}; start it without torchrun "
            "(joint and ctc are the stages that several processes share)"
        )


if __name__ == "__main__":
    sys.exit(main())
