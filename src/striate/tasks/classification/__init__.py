"""Image classification: options, data, network and loss, report."""
