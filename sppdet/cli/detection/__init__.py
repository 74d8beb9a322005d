"""`sppdet detect`."""
