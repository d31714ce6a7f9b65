"""Runs in nobody's checkout: deployed flows, the clones they work in, and the server and workers that start them."""
