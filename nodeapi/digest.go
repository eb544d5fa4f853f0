package nodeapi

import (
	"crypto/sha256"
	"encoding/binary"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// digest stands for a set of resources: the XOR of one hash for each, so that
// it can be kept up to date from both ends without going through the set.
type digest [sha256.Size]byte

// toggle takes a resource into the set, or out of it.
func (d *digest) toggle(ref resource.Ref, revision uint64) {
	text := make([]byte, 0, 128)
	for _, s := range []string{ref.Kind, ref.Tenant, ref.Name} {
		text = append(append(text, s...), 0) // no name holds a NUL
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(text, revision))
	for i := range d {
		d[i] ^= sum[i]
	}
}

func revisionOf(r *weirv1.Resource) uint64 { return resource.Meta(r).GetRevision() }
