"""Every metric: families, counters on the path, snapshots for a scrape."""
