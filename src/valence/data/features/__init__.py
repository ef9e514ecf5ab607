"""Audio and vision: archives, readers, and the extractor."""
