// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// benchCommands are the commands to measure. Each makes what it needs in a
// TPM and gives one command, or several to take in turns.
var benchCommands = []struct {
	name string
	make func(tpm *tpmtest.TPM) // sends the commands to measure last
	n    int                    // how many of the last
}{
	{"GetRandom", func(tpm *tpmtest.TPM) { tpm.Random(32) }, 1},
	{"PCR_Read", func(tpm *tpmtest.TPM) { tpm.PCR(10) }, 1},
	{"PCR_Extend", func(tpm *tpmtest.TPM) { tpm.Extend(10, "x") }, 1},
	{"ReadPublic", func(tpm *tpmtest.TPM) { tpm.Loaded(tpm.CreateSigner()) }, 1},
	{"SignECDSA", func(tpm *tpmtest.TPM) { tpm.Sign(tpm.CreateSigner(), tpmtest.Digest{}) }, 1},
	{"NV_Write", func(tpm *tpmtest.TPM) {
		tpm.DefineNV(tpmtest.NVBase, 64)
		for _, b := range []byte{1, 2} {
			tpm.WriteNV(tpmtest.NVBase, bytes.Repeat([]byte{b}, 64))
		}
	}, 2},
}

// capture gives the last n commands, with their own answers checked, that f
// sends, apart from reads of a name.
func capture(b *testing.B, send sender, n int, f func(tpm *tpmtest.TPM)) [][]byte {
	var cmds [][]byte
	f(tpmtest.New(b, func(cmd []byte) ([]byte, error) {
		if cc := cmd[8:10]; n == 1 || !bytes.Equal(cc, []byte{0x01, 0x69}) { // NV_ReadPublic
			cmds = append(cmds, bytes.Clone(cmd))
		}
		resp := make([]byte, coproc.MaxTransfer)
		size, err := send(cmd, resp)
		return resp[:size], err
	}))
	return cmds[len(cmds)-n:]
}

// sender runs a raw command and gives the length of the response.
type sender func(cmd, resp []byte) (int, error)

// BenchmarkExecute measures one command through the driver and back. The
// metric p50-µs is the median; where swtpm is installed, swtpm-p50-µs is the
// median of the same command on swtpm's bare socket, in turns with ours so
// that both see the same machine.
func BenchmarkExecute(b *testing.B) {
	for _, bc := range benchCommands {
		b.Run(bc.name, func(b *testing.B) {
			ours, theirs := simSender(b), swtpmSender(b)
			b.ReportAllocs()
			var a, c []time.Duration
			resp := make([]byte, coproc.MaxTransfer)
			mine := capture(b, ours, bc.n, bc.make)
			other := mine
			if theirs != nil {
				other = capture(b, theirs, bc.n, bc.make)
			}
			const batch = 64
			for i := 0; b.Loop(); i++ {
				a = append(a, sample(b, ours, mine[i%bc.n], resp))
				if theirs != nil && i%batch == batch-1 {
					b.StopTimer()
					for j := range batch {
						c = append(c, sample(b, theirs, other[j%bc.n], resp))
					}
					b.StartTimer()
				}
			}
			report(b, "", a)
			report(b, "swtpm-", c)
		})
	}
}

func sample(b *testing.B, send sender, cmd, resp []byte) time.Duration {
	start := time.Now()
	n, err := send(cmd, resp)
	d := time.Since(start)
	if err != nil || n < 10 || resp[8]|resp[9] != 0 {
		b.Fatalf("response %x, %v", resp[:n], err)
	}
	return d
}

// report gives the median and the 90th percentile.
func report(b *testing.B, who string, d []time.Duration) {
	if len(d) == 0 {
		return
	}
	slices.Sort(d)
	for name, q := range map[string]int{"p50": 50, "p90": 90} {
		b.ReportMetric(float64(d[len(d)*q/100].Nanoseconds())/1e3, who+name+"-µs")
	}
}

func simSender(b *testing.B) sender {
	_, s := openSlot(b, filepath.Join(b.TempDir(), "tpm"))
	if _, err := s.PowerOn(b.Context(), coproc.RunID{1}); err != nil {
		b.Fatal(err)
	}
	execute(b, s, cmdStartup)
	ctx := context.Background()
	return func(cmd, resp []byte) (int, error) {
		return s.Execute(ctx, coproc.Command{Bytes: cmd}, resp)
	}
}

// swtpmSender starts swtpm, or gives nil if there is none.
func swtpmSender(b *testing.B) sender {
	path, err := exec.LookPath("swtpm")
	if err != nil {
		b.Log("no swtpm to compare with")
		return nil
	}
	dir := b.TempDir()
	sock := filepath.Join(dir, "sock")
	cmd := exec.Command(path, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+sock, "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: sock}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			b.Fatalf("connect to swtpm: %v", err)
		}
	}
	return func(cmd, resp []byte) (int, error) {
		if _, err := unix.Write(fd, cmd); err != nil {
			return 0, err
		}
		return unix.Read(fd, resp)
	}
}
