"""`python -m rlhflab` is the command line, also where scripts are not on the path."""

from rlhflab.cli import main

main()
