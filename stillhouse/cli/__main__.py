"""`python -m stillhouse.cli`: the same as the `stillhouse` command."""

from stillhouse.cli import main

if __name__ == "__main__":
    main()
