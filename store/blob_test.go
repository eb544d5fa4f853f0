package store

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestBlobExistsOnceItIsWhole(t *testing.T) {
	b := open(t)
	const content = "ten bytes!"
	digest := digestOf(content)
	for offset := 0; offset < len(content); offset += 4 {
		if _, ok := b.Blob(digest); ok {
			t.Fatalf("it can be read after %d bytes", offset)
		}
		requireRefused(t, b.entry(transact([]*weirv1.Resource{plugin("p", digest)}))[0],
			fmt.Sprintf("NOT_FOUND Plugin p: spec.digest: nothing with the digest %s is stored: push it first", digest))
		accepted(t, b.entry(chunk(content, offset, 4))[0])
	}
	requireBlob(t, b, content)
	accepted(t, b.entry(chunk(content, 4, 4))[0])
	requireBlob(t, b, content)
}

func requireBlob(t *testing.T, b *bench, content string) {
	t.Helper()
	blob, ok := b.Blob(digestOf(content))
	if !ok || blob.Size != uint64(len(content)) {
		t.Fatalf("blob %v of %d bytes, want %d", ok, blob.Size, len(content))
	}
	if err := iotest.TestReader(blob, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

func requireNoBlob(t *testing.T, b *bench, content string) {
	t.Helper()
	if _, ok := b.Blob(digestOf(content)); ok {
		t.Fatalf("the blob %q is there", content)
	}
}

func TestChunksThatAreRefused(t *testing.T) {
	const content = "ten bytes!"
	change := func(c *weirv1.Command, f func(*weirv1.PutBlobChunk)) *weirv1.Command {
		f(c.GetPutBlobChunk())
		return c
	}
	digest := digestOf(content)
	tests := map[string]struct {
		command *weirv1.Command
		want    string
	}{
		"a gap": {chunk(content, 8, 2), `CONFLICT Blob ` + digest + `: the next chunk begins at 4, not 8`},
		"another size": {change(chunk(content, 4, 4), func(c *weirv1.PutBlobChunk) { c.Size = 11 }),
			`CONFLICT Blob ` + digest + `: it is being stored with a size of 10, not 11`},
		"no digest": {change(chunk(content, 0, 4), func(c *weirv1.PutBlobChunk) { c.Digest = "sha256:xy" }),
			`INVALID Blob sha256:xy: a digest is "sha256:" and 64 hexadecimal digits in lower case`},
		"no bytes":         {change(chunk(content, 0, 4), func(c *weirv1.PutBlobChunk) { c.Chunk = nil }), `INVALID Blob ` + digest + `: a chunk has 1 to 524288 bytes, not 0`},
		"too many bytes":   {change(chunk(content, 0, 4), func(c *weirv1.PutBlobChunk) { c.Chunk = make([]byte, MaxChunk+1) }), `INVALID Blob ` + digest + `: a chunk has 1 to 524288 bytes, not 524289`},
		"no size":          {change(chunk(content, 0, 4), func(c *weirv1.PutBlobChunk) { c.Size = 0 }), `INVALID Blob ` + digest + `: a blob has 1 to 67108864 bytes, not 0`},
		"too large a size": {change(chunk(content, 0, 4), func(c *weirv1.PutBlobChunk) { c.Size = MaxBlob + 1 }), `INVALID Blob ` + digest + `: a blob has 1 to 67108864 bytes, not 67108865`},
		"beyond the end":   {change(chunk(content, 4, 4), func(c *weirv1.PutBlobChunk) { c.Size = 7 }), `INVALID Blob ` + digest + `: a chunk of 4 bytes at 4 goes beyond the size of 7`},
		"an offset so great": {change(chunk(content, 4, 4), func(c *weirv1.PutBlobChunk) { c.Offset = 1<<64 - 2 }),
			`INVALID Blob ` + digest + `: a chunk of 4 bytes at 18446744073709551614 goes beyond the size of 10`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			accepted(t, b.entry(chunk(content, 0, 4))[0])
			requireRefused(t, b.entry(test.command)[0], test.want)
			accepted(t, b.entry(chunk(content, 4, 4))[0])
			accepted(t, b.entry(chunk(content, 8, 4))[0])
			requireBlob(t, b, content)
		})
	}
}

func TestContentThatIsNotItsDigestIsDropped(t *testing.T) {
	b := open(t)
	const content = "ten bytes!"
	wrong := chunk(content, 0, 10)
	wrong.GetPutBlobChunk().Chunk = []byte("other data")
	requireRefused(t, b.entry(wrong)[0],
		fmt.Sprintf("INVALID Blob %s: the content's digest is %s", digestOf(content), digestOf("other data")))
	requireNoBlob(t, b, content)
	b.push(content)
	requireBlob(t, b, content)
}

func TestStoredBlobHasOneSize(t *testing.T) {
	b := open(t)
	digest := b.push("module")
	b.put(plugin("p", digest))
	c := chunk("module", 0, 4)
	c.GetPutBlobChunk().Size = 99
	requireRefused(t, b.entry(c)[0], fmt.Sprintf("INVALID Blob %s: it has 6 bytes, not 99", digest))
	requireBlob(t, b, "module")
}

func TestBlobGoesWithItsLastUse(t *testing.T) {
	b := open(t)
	old, next := b.push("old module"), b.push("new module")
	b.put(plugin("a", old), plugin("b", old))
	b.put(plugin("a", next))
	requireBlob(t, b, "old module")
	b.delete(ref("Plugin", "b"))
	requireNoBlob(t, b, "old module")
	requireBlob(t, b, "new module")
	b.delete(ref("Plugin", "a"))
	requireNoBlob(t, b, "new module")
	// And can come again.
	b.put(plugin("a", b.push("old module")))
	requireBlob(t, b, "old module")
}

func TestBlobsThatNobodyUsesAreFew(t *testing.T) {
	b := open(t)
	content := func(i int) string { return fmt.Sprintf("blob %02d", i) }
	b.put(plugin("used", b.push("used")))
	for i := range maxIdleBlobs + 5 {
		b.now = b.now.Add(time.Second)
		b.push(content(i))
	}
	requireBlob(t, b, "used")
	for i := range 5 {
		requireNoBlob(t, b, content(i))
	}
	for i := range maxIdleBlobs {
		requireBlob(t, b, content(5+i))
	}
	// A blob that is pushed again counts as new.
	b.push(content(5))
	b.now = b.now.Add(2 * time.Hour)
	b.push("much later")
	requireNoBlob(t, b, content(maxIdleBlobs+4))
	requireNoBlob(t, b, content(5))
	requireBlob(t, b, "used")
	requireBlob(t, b, "much later")
}

func TestReaderOfBlobThatIsCollectedMeanwhile(t *testing.T) {
	b := open(t)
	b.put(plugin("p", b.push("ten bytes!")))
	blob, _ := b.Blob(digestOf("ten bytes!"))
	if _, err := io.ReadFull(blob, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	b.delete(ref("Plugin", "p"))
	if _, err := io.ReadAll(blob); err == nil || !strings.Contains(err.Error(), "no longer stored") {
		t.Fatalf("error is %v", err)
	}
}
