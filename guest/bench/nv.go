// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"hwvtpm/guest/workload"
)

// Sizes of the NV writes that are measured, in bytes.
const (
	nvSmall = 8
	nvLarge = 1024
)

// NVRow is one size of TPM2_NV_Write with contents that change.
type NVRow struct {
	Bytes int     `json:"bytes"`
	Ours  Dist    `json:"ours"`  // durable: written, synced, renamed, folder synced
	Card  Dist    `json:"card"`  // a slot behind coprocd: as durable, and noted by the anchor
	Swtpm Dist    `json:"swtpm"` // not synced
	Sync  Dist    `json:"sync"`  // the same steps for a file of that kind, by this program
	Ratio float64 `json:"ratio"`
}

// NVReport holds them with the file system that all of them were on.
type NVReport struct {
	FileSystem string  `json:"file_system"`
	Rows       []NVRow `json:"rows"`
}

// nvWriter writes to an NV index, each time something else: TPMs skip a write
// that changes nothing.
type nvWriter struct {
	t       target
	command []byte // the data to write is at its end, but for the offset
	data    []byte // of command
	count   uint64
}

func newNVWriter(t target, size int) (*nvWriter, error) {
	index := tpm2.TPMHandle(0x01500000 + size)
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	_, err := tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(size),
		Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, OwnerWrite: true, OwnerRead: true, NT: tpm2.TPMNTOrdinary, NoDA: true},
	})}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("bench: NV index: %w", err)
	}
	pub, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("bench: NV index: %w", err)
	}
	r := &workload.Recorder{TPM: t}
	_, err = tpm2.NVWrite{
		AuthHandle: tpm2.AuthHandle{Handle: index, Name: pub.NVName, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: index, Name: pub.NVName},
		Data:       tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, size)},
	}.Execute(r)
	if err != nil {
		return nil, fmt.Errorf("bench: NV write: %w", err)
	}
	// TCG Part 3, 31.7: the parameters end with data and a 2-byte offset.
	end := len(r.Last) - 2
	return &nvWriter{t: t, command: r.Last, data: r.Last[end-size : end]}, nil
}

func (w *nvWriter) batch(ctx context.Context, n int) ([]time.Duration, error) {
	var samples []time.Duration
	for range n {
		w.count++
		binary.BigEndian.PutUint64(w.data, w.count)
		one, err := batch(ctx, w.t, w.command, 0, 1)
		if err != nil {
			return nil, err
		}
		samples = append(samples, one...)
	}
	return samples, nil
}

func measureNV(ctx context.Context, p programs, dir string, plan Plan) (r NVReport, err error) {
	if r.FileSystem, err = fileSystem(dir); err != nil {
		return r, err
	}
	ours, err := openRing(ctx, p, dir, "nv", false)
	if err != nil {
		return r, err
	}
	defer ours.close()
	card, err := openCard(ctx, p, filepath.Join(dir, "card"))
	if err != nil {
		return r, err
	}
	defer card.close()
	swtpm, err := openSwtpm(ctx, dir)
	if err != nil {
		return r, err
	}
	defer swtpm.close()
	if err := errors.Join(startup(ours), startup(card), startup(swtpm)); err != nil {
		return r, err
	}
	for _, size := range []int{nvSmall, nvLarge} {
		row, err := nvRow(ctx, [3]target{ours, card, swtpm}, dir, size, plan)
		if err != nil {
			return r, err
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

func nvRow(ctx context.Context, targets [3]target, dir string, size int, plan Plan) (NVRow, error) {
	var steps [len(targets) + 1]func(context.Context, int) ([]time.Duration, error)
	for i, t := range targets {
		w, err := newNVWriter(t, size)
		if err != nil {
			return NVRow{}, err
		}
		steps[i] = w.batch
	}
	steps[len(targets)] = func(_ context.Context, n int) ([]time.Duration, error) { return syncBatch(dir, n) }
	var all [len(steps)]series
	for range plan.Rounds {
		for i, f := range steps {
			samples, err := f(ctx, plan.NV)
			if err != nil {
				return NVRow{}, err
			}
			all[i].add(samples)
		}
	}
	row := NVRow{Bytes: size, Ours: all[0].dist(), Card: all[1].dist(), Swtpm: all[2].dist(), Sync: all[3].dist()}
	row.Ratio = ratio(row.Ours.P50, row.Swtpm.P50)
	return row, nil
}

// syncBatch replaces a file of about the state's size durably: what no engine
// can go below on this file system.
func syncBatch(dir string, n int) ([]time.Duration, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer folder.Close()
	data := make([]byte, 8<<10)
	var samples []time.Duration
	for range n {
		start := time.Now()
		if err := replaceFile(folder, data); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		samples = append(samples, time.Since(start))
	}
	return samples, nil
}

func replaceFile(folder *os.File, data []byte) error {
	name := filepath.Join(folder.Name(), "probe")
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(name+".new", name), folder.Sync())
}

// fileSystem names the file system of dir by its magic number (statfs(2)).
func fileSystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("bench: statfs: %w", err)
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	case unix.TMPFS_MAGIC:
		return "tmpfs (nothing is durable here)", nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", nil
	}
	return fmt.Sprintf("type %#x", st.Type), nil
}
