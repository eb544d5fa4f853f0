package sdk

import (
	"fmt"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Queue is a queue of messages that the policies of a tenant share in a proxy. Each
// message is for one of them: the one that opened the queue last.
type Queue struct{ token uint32 }

// QueueHandler is told of each message in the queues that it has opened, in the sandbox
// that also has the ticks.
type QueueHandler interface {
	OnQueue(q Queue, message []byte)
}

// OpenQueue opens a queue, or finds it by its name, and has this policy listen to it.
// Call it when a handler is made that is a [QueueHandler].
func OpenQueue(name string) (Queue, error) {
	token, s := abi.RegisterQueue(name)
	if s != abi.OK {
		return Queue{}, fmt.Errorf("open queue %q: %w", name, s)
	}
	return Queue{token}, nil
}

// FindQueue finds a queue that some policy has opened, to send to it.
func FindQueue(name string) (Queue, error) {
	token, s := abi.ResolveQueue(name)
	if s != abi.OK {
		return Queue{}, fmt.Errorf("find queue %q: %w", name, s)
	}
	return Queue{token}, nil
}

// Send puts a message into the queue; it waits for nothing. What is full refuses it.
func (q Queue) Send(message []byte) error {
	if s := abi.Enqueue(q.token, message); s != abi.OK {
		return fmt.Errorf("send to queue: %w", s)
	}
	return nil
}

// OnQueueReady takes one message, for the policy that listens.
func (vm *VM) OnQueueReady(root, token uint32) {
	p := vm.policy(root)
	if p.onQueue == nil {
		return
	}
	message, s := abi.Dequeue(token)
	switch s {
	case abi.OK:
		p.onQueue.OnQueue(Queue{token}, message)
	case abi.Empty: // another was faster
	default:
		Errorf("take from queue: %v", s)
	}
}
