#!/usr/bin/env bash
# torchattacks' metadata asks for torchvision and an old requests; it needs neither.
set -euo pipefail
python -m pip install --no-deps torchattacks==3.5.1
