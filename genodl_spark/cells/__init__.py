"""Cells: counts of single cells as components, neighbours, clusters and markers. Kernels in NumPy and SciPy alone."""
