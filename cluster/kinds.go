package cluster

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	// firstKind is the number of the first action of weirv1.Command.
	firstKind = 10
	// knownKind is the last one that every version knows.
	knownKind = 13
)

// newestKind is the newest kind of command that this version's proto knows.
func newestKind() uint32 {
	newest := uint32(0)
	fields := new(weirv1.Command).ProtoReflect().Descriptor().Oneofs().ByName("action").Fields()
	for i := range fields.Len() {
		newest = max(newest, uint32(fields.Get(i).Number()))
	}
	return newest
}

// commandKind is the number of an encoded command's action.
func commandKind(command []byte) (kind uint32) {
	for len(command) > 0 {
		number, wire, n := protowire.ConsumeTag(command)
		if n < 0 {
			return kind
		}
		if number >= firstKind {
			kind = uint32(number)
		}
		m := protowire.ConsumeFieldValue(number, wire, command[n:])
		if m < 0 {
			return kind
		}
		command = command[n+m:]
	}
	return kind
}

// understood tells whether every member knows the command, where this one is
// the leader who must mind it; else it says so to the caller. An entry that a
// member cannot read would end it.
func (n *Node) understood(p *proposal) bool {
	if p.kind <= knownKind || !n.leads() {
		return true
	}
	var lag []string
	for _, m := range n.members() {
		if e, _ := n.roster.Get(m.Name); e.Newest < p.kind {
			lag = append(lag, m.Name)
		}
	}
	if len(lag) == 0 {
		return true
	}
	p.done <- outcome{err: fmt.Errorf("%w (kind %d): %s must be upgraded first", ErrTooNew, p.kind, strings.Join(lag, ", "))}
	return false
}

// agreed is the newest kind that may have been proposed.
func (n *Node) agreed() uint32 {
	agreed := uint32(1<<32 - 1)
	for _, m := range n.members() {
		e, _ := n.roster.Get(m.Name)
		agreed = min(agreed, e.Newest)
	}
	return max(agreed, knownKind)
}
