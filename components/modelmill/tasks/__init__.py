"""One module per ML task: columns, tokenising, decoding, metric and its paired unit."""
