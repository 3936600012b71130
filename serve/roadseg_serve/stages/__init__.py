"""The work of the graph as pure functions, and the thin Ray classes around them."""
