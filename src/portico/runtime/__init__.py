"""What runs in containers, and in the template processes that they are forked from."""
