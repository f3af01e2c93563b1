"""This library inside of others. Each module imports the one it is named after, which is not a requirement of ours."""
