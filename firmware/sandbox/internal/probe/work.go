// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/provision"
)

// work does what a worker does, and more of it: keys made, random numbers,
// cancelled commands and saved state, beside garbage collection, preemption by
// signals, and many threads that come and go.
func work() error {
	stop := make(chan struct{})
	var load sync.WaitGroup
	defer load.Wait()
	defer close(stop)
	load.Go(func() { collect(stop) })
	load.Go(func() { spin(stop) })
	load.Go(func() { threads(stop) })
	eng, err := engine.New()
	if err != nil {
		return err
	}
	eng.FastCurves(true)
	for i := range 4 {
		if err := oneTPM(eng); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	fmt.Print("worked")
	return nil
}

func collect(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			_ = make([]byte, 1<<20)
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
}

// spin computes without a function call, so that only a signal can preempt it.
func spin(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			for i := uint32(1); i != 1<<26; i++ {
				if i == 0 {
					return
				}
			}
		}
	}
}

// threads blocks goroutines in system calls, which makes the runtime start
// threads, and ends some of these.
func threads(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
				_, _ = unix.Poll(nil, 5)
				time.Sleep(time.Millisecond)
			})
		}
		wg.Wait()
	}
}

func oneTPM(eng *engine.Engine) error {
	if err := eng.Manufacture(); err != nil {
		return err
	}
	var perm []byte
	restart := func() error {
		perm = eng.Stored(perm[:0])
		return eng.Load(perm, nil)
	}
	// RSA and ECC keys, NV memory, a power cycle.
	if _, err := provision.Provision(eng, restart, abi.DefaultKeys, abi.DefaultBanks); err != nil {
		return err
	}
	if err := restart(); err != nil {
		return err
	}
	for _, cmd := range [][]byte{startup, signingKey, sign} {
		if err := send(eng, cmd, 0); err != nil {
			return err
		}
	}
	if err := cancelled(eng); err != nil {
		return err
	}
	vol := make([]byte, 1<<20)
	n, err := eng.Volatile(vol)
	if err != nil {
		return err
	}
	if err := eng.Load(perm, vol[:n]); err != nil {
		return err
	}
	for range 100 {
		if err := send(eng, random, 0); err != nil {
			return err
		}
	}
	return nil
}

// cancelled runs a long command that is told to stop from another thread. It
// may be done before that.
func cancelled(eng *engine.Engine) error {
	const rcCanceled = 0x909
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		time.Sleep(2 * time.Millisecond)
		eng.Cancel()
	})
	err := send(eng, rsaKey, rcCanceled)
	if errors.Is(err, errNotRefused) {
		return nil
	}
	return err
}

var errNotRefused = errors.New("the command went well")

// send runs a command whose response code is to be rc.
func send(eng *engine.Engine, cmd []byte, rc uint32) error {
	resp := make([]byte, engine.MaxResponse)
	n, _, err := eng.Process(0, bytes.Clone(cmd), resp)
	if err != nil {
		return err
	}
	if n < 10 {
		return fmt.Errorf("response of %d bytes", n)
	}
	switch got := binary.BigEndian.Uint32(resp[6:]); {
	case got == rc:
		return nil
	case got == 0:
		return errNotRefused
	default:
		return fmt.Errorf("command %x: response code %#x", cmd[6:10], got)
	}
}

// timeSyscalls prints how many nanoseconds a system call takes that the filter
// permits without a condition, and one with.
func timeSyscalls(n int) error {
	start := time.Now()
	for range n {
		unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	}
	plain := time.Since(start)
	start = time.Now()
	for range n {
		unix.RawSyscall(unix.SYS_FCNTL, 2, unix.F_GETFL, 0)
	}
	fmt.Fprintf(os.Stdout, "%.1f %.1f", float64(plain.Nanoseconds())/float64(n), float64(time.Since(start).Nanoseconds())/float64(n))
	return nil
}
