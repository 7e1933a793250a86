// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Hello is how an agent announces itself.
type Hello struct {
	// Session is random for each run of the agent.
	Session string `json:"session"`
	// BootID is the kernel's random id of this boot.
	BootID string `json:"boot_id"`
	// Kernel is the release, as uname -r prints it.
	Kernel string `json:"kernel"`
	// Uptime is the age of the kernel in seconds when the agent started.
	Uptime float64 `json:"uptime"`
	// Modules says for each module of the image whether it was loaded at boot.
	Modules []ModuleStatus `json:"modules,omitempty"`
	// Boot counts, from 1, the sessions that this client has seen. The client
	// sets it.
	Boot int `json:"-"`
}

// ModuleStatus is the outcome of loading one module at boot.
type ModuleStatus struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"` // empty: loaded
}

// request is a host's message.
type request struct {
	Session string          `json:"session,omitempty"` // empty only for OpHello
	ID      uint64          `json:"id,omitempty"`
	Op      string          `json:"op"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// reply is a guest's message: a hello, or the answer to one request.
type reply struct {
	Hello   *Hello          `json:"hello,omitempty"`
	Session string          `json:"session,omitempty"`
	ID      uint64          `json:"id,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   string          `json:"error,omitempty"`
}

var errNoMessage = errors.New("agent: not a message")

// parseRequest reads one line from the host.
func parseRequest(line []byte) (request, error) {
	var r request
	if err := parse(line, &r); err != nil {
		return request{}, err
	}
	if r.Op == "" {
		return request{}, fmt.Errorf("%w: no op", errNoMessage)
	}
	if r.Op != OpHello && (r.Session == "" || r.ID == 0) {
		return request{}, fmt.Errorf("%w: no session or id", errNoMessage)
	}
	return r, nil
}

// parseReply reads one line from the guest.
func parseReply(line []byte) (reply, error) {
	var r reply
	if err := parse(line, &r); err != nil {
		return reply{}, err
	}
	if r.Hello != nil {
		if r.Hello.Session == "" {
			return reply{}, fmt.Errorf("%w: hello without session", errNoMessage)
		}
		return r, nil
	}
	if r.Session == "" || r.ID == 0 {
		return reply{}, fmt.Errorf("%w: no session or id", errNoMessage)
	}
	return r, nil
}

func parse(line []byte, v any) error {
	// Noise is common right after a reset: no need for the decoder to see it.
	if len(line) == 0 || line[0] != '{' {
		return errNoMessage
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: %w", errNoMessage, err)
	}
	return nil
}
