"""The step export: see README.md here."""
