// SPDX-License-Identifier: Apache-2.0

package agent

// The operations and their arguments and results. An operation without a
// result type answers with an empty object.
const (
	OpHello    = "hello"    // -> Hello
	OpRun      = "run"      // RunArgs -> Result
	OpRead     = "read"     // ReadArgs -> Data
	OpWrite    = "write"    // WriteArgs
	OpReboot   = "reboot"   // answered before it happens
	OpPoweroff = "poweroff" // answered before it happens
	OpKexec    = "kexec"    // KexecArgs; answered when the kernel is loaded

	OpDriverLoad   = "driver.load"   // DriverArgs
	OpDriverUnload = "driver.unload" // DriverArgs
	OpDriverBind   = "driver.bind"   // BindArgs
	OpDriverUnbind = "driver.unbind" // BindArgs
	OpDevices      = "devices"       // -> []VirtioDevice

	OpTPMInfo    = "tpm.info"       // TPMArgs -> TPMInfo
	OpTPMRaw     = "tpm.raw"        // RawArgs -> Data
	OpRandom     = "tpm.random"     // RandomArgs -> Data
	OpPCRRead    = "tpm.pcrread"    // PCRReadArgs -> PCRs
	OpPCRExtend  = "tpm.pcrextend"  // PCRExtendArgs
	OpNVDefine   = "tpm.nvdefine"   // NVArgs
	OpNVUndefine = "tpm.nvundefine" // NVArgs
	OpNVWrite    = "tpm.nvwrite"    // NVArgs
	OpNVRead     = "tpm.nvread"     // NVArgs -> Data

	OpBench      = "bench"       // BenchArgs -> []BenchResult
	OpLoadStart  = "load.start"  // LoadArgs
	OpLoadStatus = "load.status" // -> LoadStatus
	OpLoadStop   = "load.stop"   // -> LoadStatus
)

// MaxOutput bounds each output stream of one command, in bytes.
const MaxOutput = 256 << 10

// RunArgs is a program to run.
type RunArgs struct {
	Argv      []string `json:"argv"`            // no shell in between
	Env       []string `json:"env,omitempty"`   // K=V, added to the agent's own
	Stdin     []byte   `json:"stdin,omitempty"` // none: /dev/null
	TimeoutMS int64    `json:"timeout_ms,omitempty"`
}

// Result is the outcome of a program.
type Result struct {
	ExitCode  int    `json:"exit"` // -1: killed by a signal, or at the time limit
	Stdout    []byte `json:"stdout,omitempty"`
	Stderr    []byte `json:"stderr,omitempty"`
	Truncated bool   `json:"truncated,omitempty"` // a stream had more than MaxOutput bytes
	TimedOut  bool   `json:"timed_out,omitempty"`
	NS        int64  `json:"ns"` // run time by the guest's monotonic clock
}

// ReadArgs is a file to read; at most MaxOutput bytes from Offset on are.
type ReadArgs struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset,omitempty"`
}

// WriteArgs is a file to create or replace.
type WriteArgs struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
	Mode uint32 `json:"mode,omitempty"` // 0: 0644
}

// Data is a byte string.
type Data struct {
	Data []byte `json:"data"`
}

// KexecArgs names the kernel to go on with. Both paths are of regular files in
// the guest (kexec_file_load(2)); the command line is the running kernel's.
type KexecArgs struct {
	Kernel    string `json:"kernel"`
	Initramfs string `json:"initramfs"`
}

// DriverArgs names a kernel module: for loading by its file, for unloading by
// its name.
type DriverArgs struct {
	Path   string `json:"path,omitempty"`
	Name   string `json:"name,omitempty"`
	Params string `json:"params,omitempty"` // as insmod takes them
}

// BindArgs names a device on the virtio bus and its driver.
type BindArgs struct {
	Device string `json:"device"` // such as virtio0
	Driver string `json:"driver"`
}

// VirtioDevice is a device on the virtio bus.
type VirtioDevice struct {
	Name     string `json:"name"` // such as virtio0
	ID       int    `json:"id"`   // virtio device id
	Driver   string `json:"driver,omitempty"`
	Features string `json:"features"` // negotiated bits, as sysfs shows them: bit 0 first
	Status   int    `json:"status"`
}

// TPMArgs names the device node of an operation.
type TPMArgs struct {
	Device string `json:"device,omitempty"` // empty: /dev/tpmrm0
}

// TPMInfo is what the TPM says of itself (fixed properties).
type TPMInfo struct {
	Manufacturer string `json:"manufacturer"`
	Vendor       string `json:"vendor"`
	Family       string `json:"family"`
	Revision     uint32 `json:"revision"`
	Firmware     uint64 `json:"firmware"`
	MaxCommand   uint32 `json:"max_command"`
	MaxResponse  uint32 `json:"max_response"`
}

// RawArgs is one TPM command as it goes to the device node.
type RawArgs struct {
	TPMArgs
	Command []byte `json:"command"`
}

// RandomArgs asks for random bytes of the TPM.
type RandomArgs struct {
	TPMArgs
	Bytes uint16 `json:"bytes"` // at most what one TPM2_GetRandom gives
}

// PCRReadArgs selects PCRs of one bank.
type PCRReadArgs struct {
	TPMArgs
	Bank string `json:"bank,omitempty"` // sha1, sha256 (default), sha384 or sha512
	PCRs []int  `json:"pcrs"`
}

// PCRs holds digests by PCR index.
type PCRs map[int][]byte

// PCRExtendArgs extends one PCR of one bank.
type PCRExtendArgs struct {
	TPMArgs
	Bank   string `json:"bank,omitempty"`
	PCR    int    `json:"pcr"`
	Digest []byte `json:"digest"`
}

// NVArgs works on an NV index of the owner hierarchy, with empty authorisations.
type NVArgs struct {
	TPMArgs
	Index  uint32 `json:"index"`
	Size   uint16 `json:"size,omitempty"` // define, read
	Data   []byte `json:"data,omitempty"` // write
	Offset uint16 `json:"offset,omitempty"`
}
