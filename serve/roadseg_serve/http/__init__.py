"""The HTTP contract: routes, middleware, and errors as problem+json."""
