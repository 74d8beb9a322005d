"""Programs that use the package as others do."""
