"""Where the repository's parts lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
SUPPORT = ROOT / "tests" / "support"
TEMPLATES = ROOT / "workflow" / "templates.yaml"
STUDIES = {path.stem: path for path in sorted((ROOT / "workflow" / "studies").glob("*.yaml"))}
SMALLEST_STUDY = SUPPORT / "smallest-study.yaml"
