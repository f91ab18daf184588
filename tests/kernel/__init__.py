"""The accelerators on the running kernel, in namespaces and cgroups of the tests' own."""

import pytest

# Its functions assert; without this a failure would not show the values.
pytest.register_assert_rewrite("tests.kernel.observation")
