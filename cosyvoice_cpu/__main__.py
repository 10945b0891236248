"""`python -m cosyvoice_cpu`, and the program `cosyvoice-cpu`."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line. Ctrl-C ends it in order, also while it is still being imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from cosyvoice_cpu.cli import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C. A second one finds nothing to interrupt but the clean-up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
