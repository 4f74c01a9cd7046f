"""Pure functions, tensors in and tensors out: the formulas of the course, one topic a file."""
