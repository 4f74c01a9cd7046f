"""Several calls of the command line, one after the other, in processes that were launched once.

    accelerate launch … -m tests.launched CALLS.json

CALLS.json has a list of arguments by name. Each call's output is followed by a line END with its name and exit code, on
stdout and on stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

from rlhflab import cli, processes

END = "=== end of "


def main(calls: Path) -> None:
    """Make the calls; the processes meet after each."""
    end = processes.end
    processes.end = leave
    for name, arguments in json.loads(calls.read_text()).items():
        sys.argv = ["rlhflab", *arguments]
        try:
            cli.main()
        except SystemExit as ended:
            processes.agree(True)
            if processes.is_main():
                for stream in (sys.stdout, sys.stderr):
                    print(f"\n{END}{name} {ended.code}", file=stream, flush=True)
    end(0)


def leave(code: int) -> NoReturn:
    """What `processes.end` does but for leaving the process."""
    raise SystemExit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
