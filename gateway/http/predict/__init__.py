"""`POST /models/{name}/predict`: headers, body, deadline, callers who leave."""
