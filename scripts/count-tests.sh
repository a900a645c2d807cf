#!/usr/bin/env bash
# Adds up what the test runners in a log have counted, and prints
# "N passed, N failed, N skipped".
#
#   scripts/count-tests.sh LOG
set -euo pipefail

# cargo test:  test result: ok. 12 passed; 0 failed; 1 ignored; ...
# and before:  SKIPPED: nat lab: not root
# CTest:       100% tests passed, 0 tests failed out of 12
#              and, of CMake 4:  100% tests passed out of 12
#              and, for those it skipped:  12 - name (Skipped)
# ours:        examples: 12 passed, 0 failed, 1 skipped
awk '
    # A test of ours that could not run, which cargo counts as passed.
    /^SKIPPED: /                           { skipped++; passed-- }
    /^test result: /                       { passed += $4; failed += $6; skipped += $8 }
    /tests passed(, [0-9]+ tests? failed)? out of [0-9]+/ {
        # CTest counts a skipped test as passed.
        f = match($0, /[0-9]+ tests? failed/) ? substr($0, RSTART) + 0 : 0
        match($0, /out of [0-9]+/);         n = substr($0, RSTART + 7) + 0
        failed += f; passed += n - f
    }
    /^[ \t]*[0-9]+ - .*\((Skipped|Not Run)\)/ { skipped++; if (/Skipped/) passed--; else failed-- }
    /^[a-zA-Z -]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped/ {
        sub(/^[^:]*: /, ""); passed += $1; failed += $3; skipped += $5
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }
' "$1"
