"""What the tests of decoding share is a module beside this file, drawn_pictures."""

from __future__ import annotations

import sys
from pathlib import Path

# pytest's importlib mode puts no folder on the path; the module has a name nobody else has.
sys.path.insert(0, str(Path(__file__).parent))
