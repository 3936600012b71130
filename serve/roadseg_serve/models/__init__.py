"""Published models: the artefact as it is read, verified, fetched and cached."""
