"""Commands of the `isolatent` program that train, measure and export; see isolatent.cli."""
