"""Models: pretrained encoder, pooling, head, and the classifier that unites them."""
