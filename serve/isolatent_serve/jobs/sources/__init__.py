"""Inputs of batch jobs: folders, patterns, files, archives and tables, on this machine or wherever fsspec reaches.

`list_inputs` names every item once, in an order that does not change; `open_items` reads those of a shard, in any
process, by random access. Neither holds more than a few items, or the listing of one folder, in memory.
"""

from isolatent_serve.jobs.sources.below import resolve_below
from isolatent_serve.jobs.sources.inputs import Input, Locator, Modality, Skipped, SourceError, SourceLimits
from isolatent_serve.jobs.sources.listing import list_inputs
from isolatent_serve.jobs.sources.reading import Reader, open_items

__all__ = [
    "Input",
    "Locator",
    "Modality",
    "Reader",
    "Skipped",
    "SourceError",
    "SourceLimits",
    "list_inputs",
    "open_items",
    "resolve_below",
]
