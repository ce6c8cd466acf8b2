"""What every rule says: its log, its environment, and what a cluster must know."""

import re

import pytest

from support.paths import ROOT
from support.rules import RULE_FILES, rules


def test_no_rule_file_is_forgotten():
    included = re.findall(r'include: "(.*?)"', (ROOT / "Snakefile").read_text())
    assert {ROOT / name for name in included} == set(RULE_FILES)


@pytest.mark.parametrize("name", rules())
def test_every_rule_says_what_a_cluster_must_know(name):
    text = rules()[name]
    wanted = ["log"] if "localrule: True" in text else ["log", "benchmark", "conda", "resources"]
    for directive in wanted:
        assert re.search(rf"^    {directive}:", text, re.M), f"rule {name} has no {directive}"
    if "resources" in wanted:
        assert "mem_mb=" in text and "runtime=" in text
        assert "{log}" in text, f"rule {name} writes no log"
    assert "retries" not in text
    conda = re.search(r'conda:\s+"(.*?)"', text)
    assert not conda or (ROOT / "workflow" / "rules" / conda[1]).resolve().exists()
