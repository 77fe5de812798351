"""What a model says on rows, and what it takes: batch plans, predictions, interleaved timing, memory."""
