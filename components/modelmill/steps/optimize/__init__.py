"""The step optimize: see README.md here."""
