"""Images with labels, wherever they lie."""
