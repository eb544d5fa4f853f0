package nodeapi

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

const (
	// maxPart is about how big a message may get before a change is cut in two.
	maxPart = 1 << 20
	// minCompressed is from where on compressing pays.
	minCompressed = 512
	// maxDecoded bounds what a compressed part may unpack to: one more resource
	// than fits in maxPart, at the most.
	maxDecoded = 4 << 20
)

// frame is one change of a scope, ready to be sent to many at the same time. Its
// parts are encoded already (see encoded).
type frame struct {
	to    position
	parts []*weirv1.StreamConfigResponse
	size  int
}

// encodeChange makes a frame that leads from one position to another.
func encodeChange(from, to position, puts []*weirv1.Resource, deletes []resource.Ref) *frame {
	return encode(from.revision, to, puts, deletes)
}

// encodeSnapshot makes a frame that leads there from anywhere.
func encodeSnapshot(to position, all []*weirv1.Resource) *frame {
	return encode(0, to, all, nil)
}

func encode(from uint64, to position, puts []*weirv1.Resource, deletes []resource.Ref) *frame {
	f := &frame{to: to}
	part, size := &weirv1.StreamConfigResponse{}, 0
	cut := func(more bool) {
		part.FromRevision, part.Revision, part.More = from, to.revision, more
		if !more {
			part.Digest = to.digest[:]
		}
		f.add(part)
		part, size = &weirv1.StreamConfigResponse{}, 0
	}
	grow := func(n int) {
		if size > 0 && size+n > maxPart {
			cut(true)
		}
		size += n
	}
	for _, ref := range deletes {
		m := ref.Proto()
		grow(proto.Size(m) + 4)
		part.Deletes = append(part.Deletes, m)
	}
	for _, r := range puts {
		grow(proto.Size(r) + 4)
		part.Puts = append(part.Puts, r)
	}
	cut(false)
	return f
}

func (f *frame) add(part *weirv1.StreamConfigResponse) {
	raw := marshal(part)
	if len(raw) >= minCompressed {
		if small := compress(raw); len(small) < len(raw) {
			raw = marshal(&weirv1.StreamConfigResponse{Zstd: small})
		}
	}
	f.parts = append(f.parts, encoded(raw))
	f.size += len(raw) + 64
}

func marshal(m *weirv1.StreamConfigResponse) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("nodeapi: encode change: %v", err)) // it holds text that was checked, or decoded
	}
	return raw
}

// encoded is the message of some bytes. They are all that it consists of, as
// fields of which it knows nothing, so that whoever encodes it again only copies
// them: once for each stream, where the fields would be gone through.
func encoded(raw []byte) *weirv1.StreamConfigResponse {
	m := new(weirv1.StreamConfigResponse)
	m.ProtoReflect().SetUnknown(raw)
	return m
}

// Encoders and decoders are costly to make. Those at work are as many as processors;
// an encoder that has nothing to do goes with a collection: it takes 1.5 MB, and a proxy
// needs one when it writes its journal anew, which may be once a day.
var (
	encoders = sync.Pool{New: func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // only for options that make no sense
		}
		return e
	}}
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDecoded), zstd.WithDecoderConcurrency(2))
		if err != nil {
			panic(err)
		}
		return d
	})
)

func compress(raw []byte) []byte {
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	return e.EncodeAll(raw, make([]byte, 0, len(raw)/3))
}

// unpack undoes what add did to a part.
func unpack(m *weirv1.StreamConfigResponse) (*weirv1.StreamConfigResponse, error) {
	if len(m.GetZstd()) == 0 {
		return m, nil
	}
	raw, err := decoder().DecodeAll(m.GetZstd(), nil)
	if err != nil {
		return nil, fmt.Errorf("unpack change: %w", err)
	}
	inner := new(weirv1.StreamConfigResponse)
	if err := proto.Unmarshal(raw, inner); err != nil {
		return nil, fmt.Errorf("unpack change: %w", err)
	}
	if len(inner.GetZstd()) != 0 {
		return nil, fmt.Errorf("unpack change: it is packed twice")
	}
	return inner, nil
}

// received is a whole change, as a proxy got it.
type received struct {
	snapshot       bool
	from, revision uint64
	puts           []*weirv1.Resource
	deletes        []resource.Ref
	digest         digest
	parts          int
}

// add takes in the next part. It returns true once the change is whole.
func (c *received) add(m *weirv1.StreamConfigResponse) (whole bool, err error) {
	part, err := unpack(m)
	if err != nil {
		return false, err
	}
	if c.parts > 0 && (part.GetFromRevision() != c.from || part.GetRevision() != c.revision) {
		return false, fmt.Errorf("read change to revision %d: a part of another one, to %d, came between",
			c.revision, part.GetRevision())
	}
	c.parts++
	c.from, c.revision, c.snapshot = part.GetFromRevision(), part.GetRevision(), part.GetFromRevision() == 0
	for _, r := range part.GetPuts() {
		if resource.Body(r) == nil || resource.Meta(r).GetName() == "" {
			// Declared by a server that knows more kinds than this program.
			return false, fmt.Errorf("read change to revision %d: it holds a resource of an unknown kind", c.revision)
		}
		c.puts = append(c.puts, r)
	}
	for _, ref := range part.GetDeletes() {
		c.deletes = append(c.deletes, resource.RefOf(ref))
	}
	if part.GetMore() {
		return false, nil
	}
	if len(part.GetDigest()) != len(c.digest) {
		return false, fmt.Errorf("read change to revision %d: its digest has %d bytes", c.revision, len(part.GetDigest()))
	}
	c.digest = digest(part.GetDigest())
	return true, nil
}
