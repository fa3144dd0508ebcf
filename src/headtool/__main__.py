"""python -m headtool, so that torchrun -m headtool works; and the executable."""

import sys


def main() -> None:
    """Run the command line; an interruption that comes before it has begun is told in the same words."""
    try:
        from headtool.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("headtool: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
