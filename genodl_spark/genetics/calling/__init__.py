"""Variants called from reads, and calls compared with a truth: kernels in NumPy and plain Python, without Spark or a
lake. `matching` tells which variants of two sets say the same, and what calls are counted as rests on it; labels for
what learns to call rest on it as well."""
