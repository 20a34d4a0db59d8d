"""A run's store: every finished trial, in the run's folder. Needs no torch."""

from optrode.store.peek import Peek, is_store, peek
from optrode.store.store import Store

__all__ = ["Peek", "Store", "is_store", "peek"]
