"""Text as data: tokens, pairs of sequences, and the batches made of them."""
