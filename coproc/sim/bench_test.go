// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
)

// PCR commands with an empty password (Part 3, 22).
var (
	cmdPCRRead = []byte{0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0, 0}
	cmdExtend  = append([]byte{
		0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 10,
		0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
		0, 0, 0, 1, 0, 0x0b}, make([]byte, 32)...)
)

// benchCommands are short commands, whose time is the way to the engine.
var benchCommands = []struct {
	name string
	cmd  []byte
}{
	{"GetRandom", cmdGetRandom32},
	{"PCR_Read", cmdPCRRead},
	{"PCR_Extend", cmdExtend},
}

// sender runs a raw command and gives the length of the response.
type sender func(cmd, resp []byte) (int, error)

// BenchmarkExecute measures one command through the driver and back. The
// metric p50-µs is the median; where swtpm is installed, swtpm-p50-µs is the
// median of the same command on swtpm's bare socket, in turns with ours so
// that both see the same machine.
func BenchmarkExecute(b *testing.B) {
	ours := simSender(b)
	theirs := swtpmSender(b)
	for _, bc := range benchCommands {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			var a, c []time.Duration
			const batch = 256
			for i := 0; b.Loop(); i++ {
				a = append(a, sample(b, ours, bc.cmd))
				if theirs != nil && i%batch == batch-1 {
					b.StopTimer()
					for range batch {
						c = append(c, sample(b, theirs, bc.cmd))
					}
					b.StartTimer()
				}
			}
			report(b, "p50-µs", a)
			report(b, "swtpm-p50-µs", c)
		})
	}
}

func sample(b *testing.B, send sender, cmd []byte) time.Duration {
	var resp [coproc.MaxTransfer]byte
	start := time.Now()
	n, err := send(cmd, resp[:])
	d := time.Since(start)
	if err != nil || n < 10 || resp[8]|resp[9] != 0 {
		b.Fatalf("response %x, %v", resp[:n], err)
	}
	return d
}

func report(b *testing.B, unit string, d []time.Duration) {
	if len(d) == 0 {
		return
	}
	slices.Sort(d)
	b.ReportMetric(float64(d[len(d)/2].Nanoseconds())/1e3, unit)
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
