"""Exercise checks: each compares a learner's function with a case worked out by hand and names the likely mistake."""
