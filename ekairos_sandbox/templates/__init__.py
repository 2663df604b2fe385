"""Files to begin with, and what writes them."""
