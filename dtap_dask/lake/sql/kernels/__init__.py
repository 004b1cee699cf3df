"""Kernels for whole Arrow arrays that Arrow lacks, or that it rounds differently: casts, decimals, the calendar."""
