"""Sequence to sequence: text to text, and reading text in images."""
