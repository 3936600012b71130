"""The HTTP contract: routes, errors as problem+json, and what every request passes first."""
