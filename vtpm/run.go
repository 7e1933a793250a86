// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"hwvtpm/coproc"
)

// NamedRun is the run that an operator names, for launchers that know better
// than the socket who runs the virtual machine. A new name is a new power-on.
func NamedRun(name string) coproc.RunID {
	return sha256.Sum256([]byte("hwvtpm run\x00named\x00" + name))
}

// PeerRun is the run of the process pid: this boot of the host, the process
// and the moment it started, so that a reused pid is another run. It fails if
// pid is not visible from here, as from another pid namespace.
func PeerRun(pid int) (coproc.RunID, error) {
	if pid <= 0 {
		return coproc.RunID{}, errors.New("vtpm: the peer's process is not visible")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return coproc.RunID{}, fmt.Errorf("vtpm: reading the host's boot id: %w", err)
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return coproc.RunID{}, fmt.Errorf("vtpm: reading the start time of process %d: %w", pid, err)
	}
	start, err := startTime(string(stat))
	if err != nil {
		return coproc.RunID{}, fmt.Errorf("vtpm: process %d: %w", pid, err)
	}
	id := fmt.Sprintf("hwvtpm run\x00peer\x00%s\x00%d\x00%s", strings.TrimSpace(string(boot)), pid, start)
	return sha256.Sum256([]byte(id)), nil
}

// UnknownRun is used when nothing tells which virtual machine is at the other
// end. It is always the same run, so PCRs are kept: stale measurements fail
// an attestation, forged ones would pass it.
func UnknownRun() coproc.RunID {
	return sha256.Sum256([]byte("hwvtpm run\x00unknown"))
}

// startTime takes field 22 of /proc/PID/stat (proc(5)). The command name in
// field 2 may hold spaces and parentheses, so fields count from the last one.
func startTime(stat string) (string, error) {
	const end = ") "
	i := strings.LastIndex(stat, end)
	if i < 0 {
		return "", errors.New("malformed process status")
	}
	fields := strings.Fields(stat[i+len(end):])
	if len(fields) < 20 {
		return "", errors.New("malformed process status")
	}
	return fields[19], nil
}
