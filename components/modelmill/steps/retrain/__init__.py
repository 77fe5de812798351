"""The step retrain: see README.md here."""
