// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
)

func TestUsageErrorsAreToldFromOthers(t *testing.T) {
	err := fmt.Errorf("outer: %w", Usagef("--level %d: %w", 5, io.ErrShortBuffer))
	if !IsUsage(err) || !errors.Is(err, io.ErrShortBuffer) || err.Error() != "outer: --level 5: short buffer" {
		t.Errorf("IsUsage(%v) = %v", err, IsUsage(err))
	}
	if IsUsage(io.EOF) || IsUsage(nil) {
		t.Error("another error is taken for a wrong command line")
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("READY=1"); err == nil {
		t.Error("nobody listens, and nothing is said of it")
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	n, err := manager.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("the manager got %q, %v", b[:n], err)
	}
}

func TestVersionIsTheOneThatWasBuiltIn(t *testing.T) {
	if Version() == "" {
		t.Error("a program without a version")
	}
	defer func(old string) { buildVersion = old }(buildVersion)
	buildVersion = "v1.2.3"
	if got := Version(); got != "v1.2.3" {
		t.Errorf("Version() = %q", got)
	}
}
