"""`python -m rlhflab` is the command line, even if scripts are not on the path."""

from rlhflab.cli import main

main()
