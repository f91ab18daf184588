"""Real programs over accelerated connections: whatever they do has to end as it does without."""

import pytest

# Its functions assert; without this a failure would not show the values.
pytest.register_assert_rewrite("tests.peers.arms")
