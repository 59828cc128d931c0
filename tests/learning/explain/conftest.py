"""Tests of attributions compute on one thread, as those of networks do."""

from tests.learning.models.conftest import one_thread

__all__ = ["one_thread"]
