"""The step calibrate-quantize: see README.md here."""
