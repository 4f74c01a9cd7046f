"""Run by the Colab-like environment's Python: execute a notebook and keep it with its outputs."""

import sys

import nbformat
from nbclient import NotebookClient

path, out = sys.argv[1:]
notebook = nbformat.read(path, as_version=4)
try:
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, out)
