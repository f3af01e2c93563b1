"""This library and others: inside of them, and they inside of it. Only `diffusers` here imports the one it is named
after, which is not a requirement of ours.
"""
