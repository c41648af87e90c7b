"""Commands of the `isolatent` program that need only a bundle; see isolatent.cli."""
