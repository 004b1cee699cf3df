"""Computation on whole Arrow arrays that Arrow itself lacks or rounds differently: casts, decimals, the calendar."""
