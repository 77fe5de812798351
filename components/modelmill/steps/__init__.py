"""The steps: one folder each."""
