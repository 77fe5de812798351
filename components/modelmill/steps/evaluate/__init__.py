"""The step evaluate: see README.md here."""
