// SPDX-License-Identifier: Apache-2.0

package packaging

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// units is what an administrator and libvirt do on a host with systemd, and how it
// ends; each line of its output is checked.
const units = domain + `
hook() { event "$@" 2>&1 || echo "refused"; }
dpkg --install /debs/*.deb >/dev/null
systemctl is-enabled coprocd.socket || true
echo 'COPROCD_FLAGS=--admin-uid hwvtpm --park-after 59s' >/etc/hwvtpm/coprocd.env
systemctl start coprocd.socket
vtpmctl slot create vm1 >/dev/null 2>&1
echo "flags: $(tr '\0' ' ' </proc/$(systemctl show -P MainPID coprocd)/cmdline)"
hook prepare begin
unit=vhost-user-vtpm@vm1.service
pid() { systemctl show -P MainPID $unit; }
is() { systemctl is-active "$@" || true; }
echo "started: $(is coprocd $unit | tr '\n' ' ')"
stat -c '%U:%G %a' /run/hwvtpm/vm/vm1 /run/hwvtpm/vm/vm1/vtpm.sock
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/$(pid)/status | tr -s '\t\n' ' '
for try in 1 2 3 4 5 6; do # more often than a unit is started by default
	first=$(pid)
	kill -9 $first
	until [ "$(pid)" -gt 0 ] && [ "$(pid)" != "$first" ] && [ "$(is $unit)" = active ]; do sleep 0.1; done
done
echo "killed: $(systemctl show -P NRestarts $unit)"
dpkg --install /debs/*.deb >/dev/null 2>&1
echo "upgraded: $(is coprocd $unit | tr '\n' ' ')"
hook release end
echo "released: $(is $unit) $(ls /run/hwvtpm/vm)"
systemctl start $unit
hook prepare begin
` + shutdown + `dpkg --remove hwvtpm-libvirt hwvtpm >/dev/null
echo "removed: $(is coprocd.socket coprocd $unit | tr '\n' ' ')$(systemctl list-units --failed --no-legend)"
`

// shutdown is that of a host whose libvirt, as its units have it, shuts the guests down
// first, or saves them.
const shutdown = `
cd /run/systemd/system
printf '[Unit]\nDescription=no more guests\n' >virt-guest-shutdown.target
printf '[Unit]\nRequires=virt-guest-shutdown.target\nAfter=virt-guest-shutdown.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecStop=sh -c "sleep 2; systemctl is-active coprocd.socket coprocd '$unit' >/run/order"\n' >libvirt-guests.service
printf '[Unit]\nDefaultDependencies=no\nConflicts=coprocd.socket coprocd.service '$unit' virt-guest-shutdown.target libvirt-guests.service\nAfter=libvirt-guests.service coprocd.socket\n' >down.target
systemctl daemon-reload
systemctl start libvirt-guests
systemctl start down.target # all in one transaction
echo "guests shut down: $(tr '\n' ' ' </run/order)"
systemctl start coprocd.socket $unit
cd /
`

var unitsSay = []string{
	"disabled\n", // installing starts nothing
	"--admin-uid hwvtpm --park-after 59s \n",
	"started: active active \n",
	"hwvtpm:kvm 2770\nhwvtpm:kvm 660\n",
	"CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 ",
	"killed: 6\n",
	"upgraded: active active \n",
	"released: inactive \n",
	"not started for a libvirt domain", "refused\n", // a backend that somebody else started
	"guests shut down: active active active \n",
	"removed: inactive inactive inactive \n",
}

// authority is what an operator of the authority does: root makes it, and its service
// has it from then on.
const authority = `
dpkg --install /debs/hwvtpm-control_*.deb /debs/hwvtpm-guest_*.deb >/dev/null
vtpm-guest --version
echo 'CONTROL_FLAGS=--name localhost --listen 127.0.0.1:0' >/etc/hwvtpm/control.env
systemctl start vtpm-control
echo "without an authority: $(systemctl is-active vtpm-control || true)"
vtpm-control init test >/dev/null 2>&1
systemctl start vtpm-control # which is over when it serves
test -S /var/lib/hwvtpm/control/operator.sock
echo "serving: $(systemctl is-active vtpm-control)"
stat -c '%U %a' /var/lib/hwvtpm/control /var/lib/hwvtpm/control/keys/attestation.key
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/$(systemctl show -P MainPID vtpm-control)/status | tr -s '\t\n' ' '
vtpm-control token host host-1 | tr '0-9a-f' x
systemctl restart vtpm-control
vtpm-control list tokens | grep -c host-1
` + renewal + `
dpkg --purge hwvtpm-control hwvtpm-guest 2>&1
ls /var/lib/hwvtpm/control/ca /usr/bin/vtpm-control /usr/bin/vtpm-guest /var/lib/hwvtpm-guest 2>&1 || true
echo "purged: $(systemctl is-active vtpm-control vtpm-guest-enrol.timer | tr '\n' ' ')"
`

var authoritySays = []string{
	"vtpm-guest 0.1+test\n",
	"without an authority: inactive\n",
	"serving: active\n",
	"hwvtpm-control 700\nhwvtpm-control 600\n",
	"CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 ",
	strings.Repeat("x", 64) + "\n1\n",
	"the authority in /var/lib/hwvtpm/control is kept", "root.pem",
	"timer: disabled", "timer: enabled active",
	"without a TPM: no\n",
	"enrol: 3\n", "no.sock", "700 /var/lib/hwvtpm-guest\n",
	"cannot access '/usr/bin/vtpm-control'", "cannot access '/usr/bin/vtpm-guest'", "cannot access '/var/lib/hwvtpm-guest'",
	"purged: inactive inactive \n",
}

// renewal is the guest's timer, on a machine without a TPM, and with one that is made up
// and not there.
const renewal = `
unit=vtpm-guest-enrol
echo "timer: $(systemctl is-enabled $unit.timer || true)"
systemctl --quiet enable --now $unit.timer
echo "timer: $(systemctl is-enabled $unit.timer) $(systemctl is-active $unit.timer)"
systemctl start $unit
echo "without a TPM: $(systemctl show -P ConditionResult $unit)"
mkdir -p /run/systemd/system/$unit.service.d
printf '[Unit]\nConditionPathExists=\n' >/run/systemd/system/$unit.service.d/anyway.conf
echo 'GUEST_FLAGS=--tpm swtpm:/run/no.sock --timeout 1m' >/etc/hwvtpm/guest.env
systemctl daemon-reload
systemctl start $unit || echo "enrol: $(systemctl show -P ExecMainStatus $unit)"
journalctl --no-pager -q -o cat -u $unit | tail -3
stat -c '%a %n' /var/lib/hwvtpm-guest
`

// authorityUnderSystemd runs the authority's unit, on a machine that has nothing else.
func authorityUnderSystemd(t *testing.T, cache string, debs map[string]string) {
	r := newRoot(t, cache)
	r.take(debs["hwvtpm-control"], debs["hwvtpm-guest"])
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := r.booted(ctx, authority)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	contains(t, out, authoritySays...)
}

// underSystemd runs the units under a real systemd.
func underSystemd(t *testing.T, cache string, debs map[string]string) {
	r := newRoot(t, cache)
	r.take(debs["hwvtpm"], debs["hwvtpm-libvirt"])
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := r.booted(ctx, units)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	contains(t, out, unitsSay...)
}

// booted starts systemd in the root and runs a script beside it.
func (r cleanRoot) booted(ctx context.Context, script string) (string, error) {
	boot, err := os.ReadFile("boot.sh")
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "/bin/sh", "-euc", string(boot), "sh", r.dir)
	cmd.Env = append(os.Environ(), "BOOT="+string(boot))
	cmd.Stderr = r.Output()
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	group := fmt.Sprintf("hwvtpm-test-%d", cmd.Process.Pid)
	defer removeGroup(r.T, group)
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }() // and with it all that it started
	first, err := child(ctx, cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	enter := []string{"--target", first, "--all", "--root", "--wd", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	ready := `while ! systemctl is-system-running 2>/dev/null | grep -q 'running\|degraded'; do sleep 0.1; done
`
	out, err := exec.CommandContext(ctx, "nsenter", append(enter, "/bin/sh", "-euc", ready+script)...).CombinedOutput()
	return string(out), err
}

// child waits for systemd, the only child of unshare.
func child(ctx context.Context, pid int) (string, error) {
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return "", err
		}
		if found := strings.Fields(string(text)); len(found) == 1 {
			if exe, err := os.Readlink("/proc/" + found[0] + "/exe"); err == nil && strings.HasSuffix(exe, "/systemd") {
				return found[0], nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("systemd does not start: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// removeGroup removes a control group with all below it, when the processes in it
// have ended.
func removeGroup(t *testing.T, name string) {
	const script = `mount -t cgroup2 cgroup2 "$1"
		for try in $(seq 100); do
			find "$1/$2" -depth -type d -exec rmdir {} + 2>/dev/null && exit
			sleep 0.1
		done
		exit 1`
	out, err := exec.Command("unshare", "--mount", "/bin/sh", "-euc", script, "sh", t.TempDir(), name).CombinedOutput()
	if err != nil {
		t.Errorf("removing the control group: %v: %s", err, out)
	}
}
