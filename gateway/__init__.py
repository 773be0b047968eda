"""The HTTP side of modelmux: contracts, catalog, predictions, routes. Knows no Ray."""
