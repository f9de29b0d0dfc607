"""Text-prompted segmentation: a grounder finds regions, a segmenter refines them to masks."""
