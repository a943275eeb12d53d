"""Use trained models: classify images, translate, generate text, evaluate."""
