"""modelmux on Ray Serve: the only importer of ray, and where all parts are put together."""
