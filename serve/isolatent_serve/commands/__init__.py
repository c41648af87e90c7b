"""Commands of `isolatent` that need the extra "serve"."""
