// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// fakeCard is the card of one slot: what it keeps outlives its workers.
type fakeCard struct {
	t      testing.TB
	store  *sealed.Store
	id     sealed.SlotID
	volume string // volatile file

	mu    sync.Mutex // guards what follows
	blob  []byte     // permanent state
	epoch uint64
	used  uint64 // newest generation that came with a Save
	saves int
	// save says what becomes of a Save, before the state counts as durable.
	// Nil: it is durable.
	save func(l *life, blob []byte) abi.Status
	// certify answers a Certify. Nil: with nothing to write.
	certify func(has []abi.EKCertificate, chain []byte) ([]abi.EKCertificate, []byte)
}

// randomKey is a source of a card's key that is gone with the test.
type randomKey struct{}

func (randomKey) Key() (*sealed.Key, error) { return sealed.NewKey(), nil }
func (randomKey) String() string            { return "random key" }

func newFakeCard(t testing.TB) *fakeCard {
	t.Helper()
	store, err := sealed.OpenStore(randomKey{})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCard{t: t, store: store, id: sealed.SlotID{1}, epoch: 1, volume: filepath.Join(t.TempDir(), "volatile")}
}

// life is one worker, as its card sees it.
type life struct {
	c       *fakeCard
	channel int
	mem     []byte
	page    *wire.Page
	ready   chan wire.Ready // closed at the end
	exited  chan struct{}
	err     error // how it ended; valid when exited is closed
	listens sync.WaitGroup
}

// setup is what a worker is told unless a test wants it otherwise.
func (c *fakeCard) setup() wire.Setup {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := wire.Setup{Slot: c.id, Key: c.key(c.id), Boot: [16]byte{7}, Epoch: c.epoch, UsedGeneration: c.used, BlobLen: uint32(len(c.blob))}
	if l, err := sealed.ParseLabel(c.blob); err == nil {
		s.MinEpoch, s.MinGeneration = l.Epoch, l.Generation
	}
	return s
}

func (c *fakeCard) key(id sealed.SlotID) [sealed.KeySize]byte {
	c.t.Helper()
	k, err := c.store.SlotKey(id)
	if err != nil {
		c.t.Fatal(err)
	}
	return [sealed.KeySize]byte(k.Bytes())
}

// start starts a worker in this process, with what it needs but Setup.
func (c *fakeCard) start() *life {
	c.t.Helper()
	l, theirs := c.newLife()
	l.run(theirs)
	return l
}

// run runs the worker of a life in this process.
func (l *life) run(theirs int) {
	c := l.c
	eng, err := testEngine()
	if err != nil {
		c.t.Fatal(err)
	}
	w := &worker{fd: theirs, tpm: eng, log: logger{w: c.t.Output()}, cancel: eng.Cancel, curves: eng.FastCurves, gone: eng.Cancel}
	go func() {
		l.err = w.run()
		unix.Close(theirs)
		close(l.exited)
	}()
}

// newLife gives a life without a worker, and the worker's end of its channel.
func (c *fakeCard) newLife() (l *life, theirs int) {
	c.t.Helper()
	ours, theirs, err := wire.NewChannel()
	if err != nil {
		c.t.Fatal(err)
	}
	l = &life{c: c, channel: ours, ready: make(chan wire.Ready, 1), exited: make(chan struct{})}
	c.t.Cleanup(func() { l.end(); unix.Close(ours) })
	return l, theirs
}

// give sends a Setup with its descriptors, and begins to listen.
func (l *life) give(s wire.Setup, blob []byte, data, control int) {
	t := l.c.t
	t.Helper()
	shared, err := wire.CreateShared()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(shared)
	if l.mem, err = wire.MapShared(shared); err != nil {
		t.Fatal(err)
	}
	l.page = wire.NewPage(l.mem)
	copy(l.mem[wire.BlobOffset:], blob)
	fds := []int{shared}
	if s.Descriptors() > 1 {
		vol, err := os.OpenFile(l.c.volume, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer vol.Close()
		fds = append(fds, int(vol.Fd()), data, control)[:s.Descriptors()]
	}
	if err := wire.Send(l.channel, wire.AppendSetup(nil, &s), fds...); err != nil {
		t.Fatal(err)
	}
	l.listens.Go(l.listen)
}

// listen is the card's side of the channel.
func (l *life) listen() {
	defer close(l.ready)
	b := make([]byte, wire.MaxMessage)
	for {
		n, _, err := wire.Receive(l.channel, b)
		if err != nil {
			return
		}
		if r, err := wire.ParseReady(b[:n]); err == nil {
			l.ready <- r
			continue
		}
		if ask, err := wire.ParseCertify(b[:n]); err == nil {
			l.answer(&ask)
			continue
		}
		s, err := wire.ParseSave(b[:n])
		if err != nil {
			l.c.t.Errorf("message %x: %v", b[:n], err)
			return
		}
		status := l.c.keep(l, l.mem[wire.BlobOffset:][:s.Length])
		if wire.Send(l.channel, wire.AppendSaved(nil, wire.Saved{Status: status})) != nil {
			return
		}
	}
}

// answer answers a Certify.
func (l *life) answer(ask *wire.Certify) {
	b := append([]byte(nil), l.mem[wire.BlobOffset:][:ask.ListLen+ask.ChainLen]...)
	has, err := abi.ParseEKCertificates(b[:ask.ListLen])
	if err != nil {
		l.c.t.Error(err)
	}
	var list []abi.EKCertificate
	var chain []byte
	if l.c.certify != nil {
		list, chain = l.c.certify(has, b[ask.ListLen:])
	}
	all := abi.AppendEKCertificates(nil, list)
	done := wire.Certified{ListLen: uint32(len(all)), ChainLen: uint32(len(chain))}
	copy(l.mem[wire.BlobOffset:], append(all, chain...))
	wire.Send(l.channel, wire.AppendCertified(nil, done))
}

// keep makes a state durable. It refuses to use a position twice.
func (c *fakeCard) keep(l *life, blob []byte) abi.Status {
	label, err := sealed.ParseLabel(blob)
	c.mu.Lock()
	if err != nil || label.Slot != c.id || label.Epoch != c.epoch || label.Generation <= c.used {
		c.t.Errorf("save of %v after generation %d, %v", label, c.used, err)
	}
	c.used = label.Generation
	c.saves++
	save := c.save
	c.mu.Unlock()
	status := abi.StatusOK
	if save != nil {
		status = save(l, blob)
	}
	if status == abi.StatusOK {
		c.replace(blob)
	}
	return status
}

// replace makes a copy of blob what the next worker gets.
func (c *fakeCard) replace(blob []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blob = append([]byte(nil), blob...)
}

// onSave says what becomes of each Save from now on.
func (c *fakeCard) onSave(f func(l *life, blob []byte) abi.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.save = f
}

// count is how many states came to be saved.
func (c *fakeCard) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.saves
}

// durable is the state that the next worker gets.
func (c *fakeCard) durable() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blob
}

// end ends the channel and waits for the worker. It is idempotent.
func (l *life) end() {
	unix.Shutdown(l.channel, unix.SHUT_RDWR)
	<-l.exited
	l.listens.Wait()
}

// park orders the worker to exit, and waits for that.
func (l *life) park() {
	l.c.t.Helper()
	if err := wire.Send(l.channel, wire.AppendPark(nil)); err != nil && !errors.Is(err, io.EOF) {
		l.c.t.Fatal(err)
	}
	<-l.exited
	if l.err != nil {
		l.c.t.Errorf("parked worker ended with %v", l.err)
	}
	l.end()
}

// make has a worker make the slot's TPM.
func (c *fakeCard) make(s wire.Setup, blob []byte) wire.Ready {
	c.t.Helper()
	l := c.start()
	l.give(s, blob, -1, -1)
	r, ok := <-l.ready
	if !ok {
		c.t.Fatalf("no ready: %v", l.err)
	}
	<-l.exited
	l.end()
	return r
}

// create has a worker make a TPM without what takes time.
func (c *fakeCard) create() {
	c.t.Helper()
	s := c.setup()
	s.Flags, s.BlobLen, s.Banks = wire.Create, 0, abi.DefaultBanks
	if r := c.make(s, nil); r.Status != abi.StatusOK {
		c.t.Fatalf("create: %+v", r)
	}
}

// client is the client of a slot, and the ends of its sockets that a card keeps.
type client struct {
	t             testing.TB
	data, control int // the client's
	far           [2]int
	seq           uint64
	tpm           *tpmtest.TPM
}

func newClient(t testing.TB) *client {
	t.Helper()
	c := &client{t: t}
	d, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.data, c.control, c.far = d[0], k[0], [2]int{d[1], k[1]}
	t.Cleanup(c.close)
	c.tpm = tpmtest.New(t, func(cmd []byte) ([]byte, error) { return c.execute(cmd).Payload, nil })
	return c
}

// close ends the client and what the card has kept for it.
func (c *client) close() {
	if c.data < 0 {
		return
	}
	for _, fd := range [...]int{c.data, c.control, c.far[0], c.far[1]} {
		unix.Close(fd)
	}
	c.data = -1
}

func (c *client) send(sub *abi.Submission) {
	c.t.Helper()
	if _, err := unix.Write(c.data, abi.AppendSubmission(nil, sub)); err != nil {
		c.t.Fatalf("submit: %v", err)
	}
}

// receive gives a completion, or false at the end of the channel.
func (c *client) receive() (abi.Completion, bool) {
	c.t.Helper()
	b := make([]byte, abi.MaxMessage)
	n, err := unix.Read(c.data, b)
	if err != nil || n == 0 {
		return abi.Completion{}, false
	}
	done, err := abi.ParseCompletion(b[:n])
	if err != nil {
		c.t.Fatalf("completion %x: %v", b[:n], err)
	}
	return done, true
}

// cancel cancels a command on the control channel.
func (c *client) cancel(seq uint64) {
	c.t.Helper()
	msg := abi.AppendControl(nil, abi.Control{Op: abi.ControlCancel, Arg: seq})
	if _, err := unix.Write(c.control, msg); err != nil {
		c.t.Fatalf("cancel: %v", err)
	}
}

// ping waits until the worker has obeyed all that came on the control channel.
func (c *client) ping() {
	c.t.Helper()
	b := make([]byte, abi.ControlSize)
	if _, err := unix.Write(c.control, abi.AppendControl(nil, abi.Control{Op: abi.ControlPing})); err != nil {
		c.t.Fatalf("ping: %v", err)
	}
	if _, err := unix.Read(c.control, b); err != nil {
		c.t.Fatalf("pong: %v", err)
	}
}

func (c *client) ask(sub *abi.Submission) abi.Completion {
	c.t.Helper()
	c.send(sub)
	done, ok := c.receive()
	if !ok {
		c.t.Fatalf("no answer to opcode %#x", sub.Op)
	}
	return done
}

func (c *client) execute(cmd []byte) abi.Completion {
	c.t.Helper()
	c.seq++
	return c.ask(&abi.Submission{Op: abi.OpExecute, Seq: c.seq, Payload: cmd})
}

// greet identifies and powers on, and gives what the power-on says.
func (c *client) greet(run byte) abi.PowerOnReply {
	c.t.Helper()
	if done := c.ask(&abi.Submission{Op: abi.OpIdentify, Payload: hello}); done.Status != abi.StatusOK {
		c.t.Fatalf("identify: %v %q", done.Status, done.Payload)
	}
	id := [abi.RunIDSize]byte{run}
	done := c.ask(&abi.Submission{Op: abi.OpPowerOn, Payload: id[:]})
	if done.Status != abi.StatusOK {
		c.t.Fatalf("power-on: %v", done.Status)
	}
	r, err := abi.ParsePowerOnReply(done.Payload)
	if err != nil {
		c.t.Fatal(err)
	}
	c.seq = max(c.seq, r.LastSeq)
	return r
}

// open starts a worker for the client, with a Setup that change may change, and
// waits until it is ready.
func (c *fakeCard) open(k *client, change func(*wire.Setup)) *life {
	c.t.Helper()
	s := c.setup()
	if change != nil {
		change(&s)
	}
	l := c.start()
	l.give(s, c.durable(), k.far[0], k.far[1])
	if r, ok := <-l.ready; !ok || r.Status != abi.StatusOK {
		c.t.Fatalf("ready: %+v, %t", r, ok)
	}
	return l
}

// refused starts a worker that should refuse its Setup, and gives why it does.
func (c *fakeCard) refused(change func(*wire.Setup)) wire.Ready {
	c.t.Helper()
	k := newClient(c.t)
	s := c.setup()
	change(&s)
	l := c.start()
	l.give(s, c.durable(), k.far[0], k.far[1])
	r := <-l.ready
	<-l.exited
	if l.err == nil || r.Status == abi.StatusOK {
		c.t.Errorf("worker ended with %v after %+v", l.err, r)
	}
	l.end()
	return r
}
