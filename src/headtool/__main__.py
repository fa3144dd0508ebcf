"""python -m headtool, so that torchrun -m headtool works."""

from headtool.cli import main

if __name__ == "__main__":
    main()
