"""Benchmarks: each compares rlhflab with a peer in one run and prints one JSON line. See README.md's figures."""
