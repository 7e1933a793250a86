// SPDX-License-Identifier: Apache-2.0

package vtpm

import "hwvtpm/virtqueue"

// request is a chain read according to its layout.
type request struct {
	locality uint8
	command  []byte
	response []byte // where the TPM response goes
	status   []byte // the status byte of a framed chain, else empty
}

// parseRequest splits a chain into its parts. Both layouts are byte streams:
// where one descriptor ends and the next begins means nothing (VIRTIO 1.3,
// 2.7.4 "Message Framing").
//
//	plain    readable: command            writable: response ...
//	framed   readable: locality, command  writable: response ..., status
//
// ok is false if the chain can't carry a request: its writable part is not
// BufferSize to maxWritable bytes of response space, or a framed chain has no
// locality byte. The parts that could be read are set all the same, so that a
// status can be given.
func parseRequest(req *virtqueue.Request, framed bool) (r request, ok bool) {
	r.command, r.response = req.In, req.Out
	whole := int(req.OutTotal) == len(req.Out) && len(req.Out) <= maxWritable
	if !framed {
		return r, whole && len(r.response) >= BufferSize
	}
	if n := len(req.Out); whole && n > 0 {
		r.response, r.status = req.Out[:n-1], req.Out[n-1:]
	}
	if len(req.In) == 0 || len(r.status) == 0 {
		return r, false
	}
	r.locality, r.command = req.In[0], req.In[1:]
	return r, len(r.response) >= BufferSize
}

// validCommand reports whether the command's own idea of its size is the
// number of bytes that the driver gave, and within BufferSize.
func validCommand(cmd []byte, truncated bool) (header, bool) {
	h, ok := parseHeader(cmd)
	return h, ok && !truncated && len(cmd) <= BufferSize && int64(h.size) == int64(len(cmd))
}
