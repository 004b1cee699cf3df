"""Passes over the chosen rows of a split, and the positions that they begin and end at."""
