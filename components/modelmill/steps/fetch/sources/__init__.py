"""One module per scheme: how a source is pinned, listed and copied."""
