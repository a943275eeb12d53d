"""From an image file to a tensor: `decode`, `Preprocess` (the contract), `augment`."""
