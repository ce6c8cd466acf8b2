"""Settings that may be given for each variant."""

from collections.abc import Iterator


def of_variants(key: str, value: object, variants: list[str]) -> Iterator[str]:
    """The variants that are left out where a value is given for each."""
    for variant in variants:
        if isinstance(value, dict) and variant not in value:
            yield f"{key}.{variant}: missing; give one value for all variants, or one for each"
