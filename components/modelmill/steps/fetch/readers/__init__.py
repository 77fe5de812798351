"""One module per way of turning fetched files into rows by split."""
