"""Readers of annotation formats: a file or folder to a `RawDataset`."""
