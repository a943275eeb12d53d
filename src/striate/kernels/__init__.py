"""Performance code that stays out of the model files; importing this package loads nothing heavy."""
