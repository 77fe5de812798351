"""How the line is run: one step anywhere (container), all of it on this machine (local)."""
