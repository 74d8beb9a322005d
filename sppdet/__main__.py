"""`python -m sppdet`, and where the command `sppdet` starts."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; an interrupt while it is still being imported leaves quietly too."""
    try:
        from sppdet.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
