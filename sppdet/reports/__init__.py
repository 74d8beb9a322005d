"""Reports: see docs/architecture.md."""
