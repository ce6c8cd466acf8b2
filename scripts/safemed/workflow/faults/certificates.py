"""What is wrong with how certificates are made."""

from collections.abc import Iterator

from safemed.certificates import smoothing


def faults(config: dict) -> Iterator[str]:
    """Each fault of certify, beginning with its whole key; none where the study makes no certificates."""
    if "certify" not in config["evaluations"]:
        return
    certify = config["certify"]
    if any(round(radius, smoothing.RADIUS_DIGITS) != radius for radius in certify["radii"]):
        yield f"certify.radii: {certify['radii']}; radii are certified to {smoothing.RADIUS_DIGITS} decimals"
    if certify["shards"] > certify["questions"]:
        yield f"certify.shards: {certify['shards']} jobs cannot share {certify['questions']} questions"
    if certify["n"] < (needed := smoothing.votes_needed(certify["mode"], certify["alpha"])):
        given = f"alpha = {certify['alpha']} and mode = {certify['mode']}"
        yield f"certify.n: {certify['n']} draws certify nothing with {given}; at least {needed}"
