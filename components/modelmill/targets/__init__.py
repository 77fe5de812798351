"""One module per runtime: session, threads, capabilities."""
