"""Forms of bodies and answers beside the typed route's JSON: tables, and other protocols' JSON."""
