"""`python -m stillhouse`: the command line, where no script is on the path."""

from stillhouse.cli import main

main()
