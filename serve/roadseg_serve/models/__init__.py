"""Published models: how they are found, fetched, cached and verified."""
