"""Margins as probabilities."""
