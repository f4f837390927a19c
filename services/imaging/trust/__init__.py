"""How far an answer can be trusted: whether the input is like what the model knows, how far the answer moves when the
input is turned or shaken, and where in the image it comes from.
"""
