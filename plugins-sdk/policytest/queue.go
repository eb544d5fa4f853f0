package policytest

import (
	"slices"
	"strings"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// queue is a shared queue, of which its listener is told when the callback is over in
// which something was sent.
type queue struct {
	name     string
	listener *Policy
	messages [][]byte
	untold   int // messages of which the listener was not told
}

func (s *side) RegisterQueue(name string) (uint32, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.queueNamed(name)
	if i < 0 {
		i = len(s.queues)
		s.queues = append(s.queues, &queue{name: strings.Clone(name)})
	}
	s.queues[i].listener = s.call.policy
	return uint32(i + 1), abi.OK
}

// queueNamed is called with mu held.
func (h *Host) queueNamed(name string) int {
	return slices.IndexFunc(h.queues, func(q *queue) bool { return q.name == name })
}

func (s *side) ResolveQueue(name string) (uint32, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.queueNamed(name)
	if i < 0 {
		return 0, abi.NotFound
	}
	return uint32(i + 1), abi.OK
}

// withQueue calls f with a queue.
func (s *side) withQueue(token uint32, f func(q *queue) abi.Status) abi.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token == 0 || int(token) > len(s.queues) {
		return abi.NotFound
	}
	return f(s.queues[token-1])
}

func (s *side) Enqueue(token uint32, message []byte) abi.Status {
	return s.withQueue(token, func(q *queue) abi.Status {
		q.messages = append(q.messages, slices.Clone(message))
		q.untold++
		return abi.OK
	})
}

func (s *side) Dequeue(token uint32) (message []byte, status abi.Status) {
	status = s.withQueue(token, func(q *queue) abi.Status {
		if len(q.messages) == 0 {
			return abi.Empty
		}
		message, q.messages = q.messages[0], q.messages[1:]
		return abi.OK
	})
	return message, status
}

// deliver tells listeners of what was sent to them.
func (h *Host) deliver() {
	for {
		h.mu.Lock()
		i := slices.IndexFunc(h.queues, func(q *queue) bool { return q.untold > 0 && q.listener != nil })
		if i < 0 {
			h.mu.Unlock()
			return
		}
		h.queues[i].untold--
		listener := h.queues[i].listener
		h.mu.Unlock()
		listener.hear(uint32(i + 1))
	}
}

// hear lets the policy take a message.
func (p *Policy) hear(token uint32) {
	c := &call{}
	p.during(c, func() { p.vm.OnQueueReady(rootID, token) })
	p.answer(c, 0)
}
