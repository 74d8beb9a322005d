"""Vocabulary and tools: boxes, samples, detections, errors, images, settings, files."""
