"""Why a model gave a text its label."""
