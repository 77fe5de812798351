"""The step publish: see README.md here."""
