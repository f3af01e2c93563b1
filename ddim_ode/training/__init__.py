"""Training a network: its settings, its batches and its loop."""
