"""What the tests of adapters share: the loopback providers and the contract suite are modules beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

# pytest's importlib mode puts no folder on the path; both modules have names nobody else has.
sys.path.insert(0, str(Path(__file__).parent))
