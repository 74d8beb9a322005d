"""What the command shows on a terminal: progress, notes, and what becomes of an error."""
