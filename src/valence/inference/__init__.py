"""Using a trained model: :class:`~valence.inference.predictor.Predictor`."""
