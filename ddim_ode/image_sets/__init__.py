"""Sets of images on disk, of which a part at a time is in memory."""
