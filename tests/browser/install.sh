#!/usr/bin/env bash
# Installs Debian's Chromium, and fonts for the scripts of the 15 XNLI languages, which tests/browser needs. Needs root.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -yq --no-install-recommends chromium fonts-noto-core fonts-wqy-zenhei
chromium --version
