//go:build weir_kind14

package node

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const newestKind = 14

// Apply ends the process on what the earlier version could not have read.
func (m machine) Apply(indexes []uint64, entries [][]byte) [][]any {
	for i, data := range entries {
		entry := new(weirv1.Entry)
		if err := proto.Unmarshal(data, entry); err != nil {
			panic(err)
		}
		for _, c := range entry.GetCommands() {
			if c.GetRaiseRevision() != nil || c.GetGrantLeases() != nil || c.GetCreate() != nil {
				panic(fmt.Sprintf("entry %d holds a command of a kind after 14", indexes[i]))
			}
		}
	}
	return m.Store.Apply(indexes, entries)
}
