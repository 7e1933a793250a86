// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"fmt"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// A device that answers in upper case, and one request of a driver.
func Example() {
	driver := queuetest.NewDriver(queuetest.Options{Size: 8, EventIdx: true})
	if _, err := driver.Add([][]byte{[]byte("hello, "), []byte("device")}, []int{64}, false); err != nil {
		panic(err)
	}

	mem := driver.Memory()
	queue, err := virtqueue.New(mem, driver.Config())
	if err != nil {
		panic(err)
	}
	defer queue.Close()
	var chain virtqueue.Chain
	for {
		ok, err := queue.Pop(&chain)
		if err != nil {
			panic(err) // a real device stops this ring
		}
		if !ok {
			break // a real device calls EnableKick and sleeps
		}
		request := make([]byte, min(chain.Readable(), 4096))
		if _, err := chain.ReadAt(mem, request, 0); err != nil {
			panic(err)
		}
		n, err := chain.WriteAt(queue, bytes.ToUpper(request), 0)
		if err != nil {
			panic(err)
		}
		if err := queue.Push(&chain, uint32(n)); err != nil {
			panic(err)
		}
		fmt.Println("call the driver:", queue.NeedCall())
	}

	_, written, reply, _ := driver.Poll()
	fmt.Printf("%d bytes: %s\n", written, reply)
	// Output:
	// call the driver: true
	// 13 bytes: HELLO, DEVICE
}
