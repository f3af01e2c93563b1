"""Work over many samples or images, cut into shards that one process or many work through."""
