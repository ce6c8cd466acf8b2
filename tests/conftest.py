"""Shared fixtures; puts `scripts/` on the path as running a script does."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
