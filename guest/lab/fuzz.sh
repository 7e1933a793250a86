#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh [TIME]: runs each fuzz target of the module for TIME (default 10s).
# Crashers land in the package's testdata/fuzz, to be kept with the fix.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
fuzztime=${1:-10s}
ran=0 failed=()

while IFS=: read -r file func; do
	name=${func#func } name=${name%%(*} pkg=./$(dirname "$file")
	echo "== $pkg $name"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" "$pkg" </dev/null || failed+=("$pkg $name")
	ran=$((ran + 1))
done < <(git grep -E '^func Fuzz[A-Z0-9_]' -- '*_test.go')

echo "$ran fuzz targets, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] || {
	printf '  %s\n' "${failed[@]}"
	exit 1
}
