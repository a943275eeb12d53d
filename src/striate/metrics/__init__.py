"""Measures: arrays in, a frozen record out."""
