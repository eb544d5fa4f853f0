//go:build weir_kind14 || weir_kind16 || weir_kind18

package node

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Apply ends the process on what the earlier version could not have read.
func (m machine) Apply(indexes []uint64, entries [][]byte) [][]any {
	for i, data := range entries {
		entry := new(weirv1.Entry)
		if err := proto.Unmarshal(data, entry); err != nil {
			panic(err)
		}
		for _, c := range entry.GetCommands() {
			message := c.ProtoReflect()
			action := message.WhichOneof(message.Descriptor().Oneofs().ByName("action"))
			if action != nil && action.Number() > newestKind {
				panic(fmt.Sprintf("entry %d holds %s, a command of a kind after %d", indexes[i], action.Name(), newestKind))
			}
		}
	}
	return m.Store.Apply(indexes, entries)
}
