#!/usr/bin/env bash
# What the system tests drive: Debian's Chromium, Orthanc and Postgres, and OHIF as npm has it. Installs what is missing; starts nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

OHIF_VERSION=3.11.1
OHIF_INTEGRITY=sha512-0lJRyHguGuIR06PxeJ3rqnPWf1OAqsaXGuqT2kl5HkNjIOxBDnRTTMvyHnkn3ZyjcHlsIhY8gf0h7AhVORqsSQ==
OHIF=".cache/ohif-$OHIF_VERSION"

has() { PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null; }
missing=()
has chromium || missing+=(chromium)
has chromedriver || missing+=(chromium-driver)
has Orthanc || missing+=(orthanc)
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ -e "$OHIF/dist/index.html" ] || has npm || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  policy=/usr/sbin/policy-rc.d  # keeps Debian from starting services of its own
  if [ ! -e "$policy" ]; then
    trap '$sudo rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod +x "$policy"
  fi
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [ ! -e "$OHIF/dist/index.html" ]; then
  rm -rf "$OHIF" "$OHIF.part"
  mkdir -p "$OHIF.part"
  npm pack --silent --pack-destination "$OHIF.part" "@ohif/app@$OHIF_VERSION" >/dev/null
  archive=$(echo "$OHIF.part"/*.tgz)
  found="sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)"
  [ "$found" = "$OHIF_INTEGRITY" ] || { echo "$archive is not the @ohif/app $OHIF_VERSION that was expected: $found." >&2; exit 1; }
  tar -xzf "$archive" -C "$OHIF.part" --strip-components=1 package/dist package/package.json
  rm "$archive"
  mv "$OHIF.part" "$OHIF"
fi
