"""The step fetch: see README.md here."""
