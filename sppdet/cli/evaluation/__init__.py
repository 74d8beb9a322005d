"""Comparing models and results."""
