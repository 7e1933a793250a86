// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// StartRow compares the starts of both sides' processes, from fork and exec on.
type StartRow struct {
	What         string  `json:"what"`
	OursReady    Dist    `json:"ours_ready"`    // the socket accepts a connection
	OursAnswers  Dist    `json:"ours_answers"`  // TPM2_Startup was answered
	SwtpmReady   Dist    `json:"swtpm_ready"`   //
	SwtpmAnswers Dist    `json:"swtpm_answers"` //
	AnswersRatio float64 `json:"answers_ratio"` // ours / swtpm, medians
}

// starter starts one side's processes on the TPM in dir and gives them with
// the connection, and what turns these into a target.
type starter struct {
	launch  func(dir string, n int) (*process, string, error)
	connect func(*process, *net.UnixConn) (target, error)
}

func starters(p programs) (ours, swtpm starter) {
	ours = starter{
		launch: func(dir string, n int) (*process, string, error) {
			return p.startBackend(dir, fmt.Sprintf("start-%d", n))
		},
		connect: func(proc *process, c *net.UnixConn) (target, error) { return newRing(proc, c, false) },
	}
	swtpm = starter{
		launch:  func(dir string, _ int) (*process, string, error) { return startSwtpm(dir) },
		connect: func(proc *process, c *net.UnixConn) (target, error) { return newSwtpm(proc, c) },
	}
	return ours, swtpm
}

// once measures one start.
func (s starter) once(ctx context.Context, dir string, n int) (ready, answers time.Duration, err error) {
	begin := time.Now()
	proc, socket, err := s.launch(dir, n)
	if err != nil {
		return 0, 0, err
	}
	defer proc.stop()
	conn, err := proc.connect(ctx, socket)
	ready = time.Since(begin)
	if err != nil {
		return 0, 0, err
	}
	t, err := s.connect(proc, conn)
	if err != nil {
		return 0, 0, err
	}
	defer t.close()
	err = startup(t)
	return ready, time.Since(begin), err
}

// measureStarts does pairs of starts: of a TPM that exists, and of a new one.
func measureStarts(ctx context.Context, p programs, dir string, plan Plan) ([]StartRow, error) {
	existing, err := startPairs(ctx, p, plan, func(int) string { return filepath.Join(dir, "same") })
	if err != nil {
		return nil, err
	}
	existing.What = "a TPM that exists"
	fresh, err := startPairs(ctx, p, plan, func(n int) string { return filepath.Join(dir, fmt.Sprint(n)) })
	if err != nil {
		return nil, err
	}
	fresh.What = "a new TPM is made"
	return []StartRow{existing, fresh}, nil
}

// startPairs starts both sides once before it counts: caches are warm, and a
// TPM exists where the folder is always the same.
func startPairs(ctx context.Context, p programs, plan Plan, folder func(n int) string) (StartRow, error) {
	var times [4][]time.Duration
	ours, swtpm := starters(p)
	for n := range plan.Starts + 1 {
		dir := folder(n)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return StartRow{}, fmt.Errorf("bench: %w", err)
		}
		r1, a1, err1 := ours.once(ctx, dir, n)
		r2, a2, err2 := swtpm.once(ctx, dir, n)
		if err := errors.Join(err1, err2); err != nil {
			return StartRow{}, err
		}
		if n == 0 {
			continue
		}
		for i, d := range []time.Duration{r1, a1, r2, a2} {
			times[i] = append(times[i], d)
		}
	}
	var d [4]Dist
	for i := range times {
		var s series
		s.add(times[i])
		d[i] = s.dist()
	}
	return StartRow{
		OursReady: d[0], OursAnswers: d[1], SwtpmReady: d[2], SwtpmAnswers: d[3],
		AnswersRatio: ratio(d[1].P50, d[3].P50),
	}, nil
}
