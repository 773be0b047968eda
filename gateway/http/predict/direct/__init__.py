"""Small predictions that are answered without a task of their own."""
