"""The step gate: see README.md here."""
