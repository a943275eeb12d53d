"""Trained networks in the formats of other tools, each compared with the original once it is written."""
